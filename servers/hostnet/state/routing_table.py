"""The kernel's main routing tables as ``/proc/net`` shows them, which anybody may read."""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc/self/net")
REJECT_ROUTE = 0x0200  # RTF_REJECT


@dataclass(frozen=True, slots=True)
class TableRoute:
    """``interface`` is empty where the route leads nowhere."""

    network: ipaddress.IPv4Network | ipaddress.IPv6Network
    metric: int
    interface: str


def read(proc: Path = PROC) -> list[TableRoute]:
    """Of both families; of one that this machine does not have, none."""
    found: list[TableRoute] = []
    for name, parse in (("route", _route4), ("ipv6_route", _route6)):
        try:
            lines = (proc / name).read_text().splitlines()
        except OSError:
            continue
        found += (parse(line.split()) for line in lines if line and not line.startswith("Iface"))
    return found


def _route4(fields: list[str]) -> TableRoute:
    """Addresses are hexadecimal, in the byte order of the machine."""
    target, mask = (socket.inet_ntoa(struct.pack("=I", int(fields[index], 16))) for index in (1, 7))
    name = "" if int(fields[3], 16) & REJECT_ROUTE else fields[0]
    return TableRoute(ipaddress.IPv4Network((target, mask), strict=False), int(fields[6]), name)


def _route6(fields: list[str]) -> TableRoute:
    network = ipaddress.IPv6Network((int(fields[0], 16), int(fields[1], 16)), strict=False)
    return TableRoute(network, int(fields[5], 16), "" if int(fields[8], 16) & REJECT_ROUTE else fields[9])
