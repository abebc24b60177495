"""What both sides do with networks, and with the addresses of servers. Pure."""

from __future__ import annotations

import ipaddress
import re

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([\w.-]+))(?::(\d{1,5}))?", re.ASCII)


def overlap(one: Network, other: Network) -> bool:
    """Whether the two share an address; those of different families never do."""
    return one.version == other.version and one.overlaps(other)


def host_and_port(text: str, port: int) -> tuple[str, int]:
    """``host`` or ``host:port``, an IPv6 address in brackets; ``port`` where it says none. Raise ``ValueError`` where
    it is neither."""
    match = _HOST.fullmatch(text)
    if match is None or not 0 < int(match[3] or port) < 65536:
        raise ValueError("neither host nor host:port")
    return match[1] or match[2], int(match[3] or port)
