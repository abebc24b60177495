"""One end of a link that OpenVPN carries, with all that its host needs for it. Part of ``Link``."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .names import HOST_NAME, LINK_INTERFACE, OPAQUE_ID

# Each ends up in a configuration file, between tags of it: nothing but base64 and the lines around it.
_PEM = re.compile(r"(?:-----(?:BEGIN|END) [A-Za-z0-9 ]{1,40}-----|[A-Za-z0-9+/=]{1,76}|#[ A-Za-z0-9-]{0,60}|\n)+")
SMALLEST_MTU = 1280  # what IPv6 needs
MOST_ADDRESSES = 16  # openvpn takes up to 64
LOWEST_PORT = 1024  # it takes the port again when it begins anew, and is no root then


@dataclass(frozen=True, slots=True)
class OpenVpn:
    """``device`` is the interface's name here. One end listens on UDP ``port``, and has no ``addresses``; the other one
    sends there, to the first of ``addresses`` (IP addresses or names) that answers.

    ``peer`` is the name that the other end's certificate must have, and ``authority`` (PEM) is what it must be signed
    with. ``certificate`` is this end's own; ``key`` is its private key (PKCS#8 PEM), and ``tls_crypt`` the static key
    that both ends have (OpenVPN's own form). ``mtu`` is the interface's, in bytes; 0: the host chooses it.
    """

    device: str
    port: int
    addresses: tuple[str, ...]
    peer: str
    authority: str
    certificate: str
    key: str = field(repr=False)
    tls_crypt: str = field(repr=False)
    mtu: int = 0

    @property
    def listens(self) -> bool:
        return not self.addresses


def openvpn_from_json(data: Mapping[str, Any]) -> OpenVpn:
    """Raise ``KeyError``, ``TypeError`` or ``ValueError`` where ``data`` is no such end. No error shows a key."""
    device, port, peer = str(data["device"]), int(data["port"]), str(data["peer"])
    addresses = tuple(str(address) for address in data["addresses"])
    if not LINK_INTERFACE.fullmatch(device) or not OPAQUE_ID.fullmatch(peer):
        raise ValueError("the device or the peer of a link")
    if not LOWEST_PORT <= port < 65536:
        raise ValueError("the port of a link")
    if len(addresses) > MOST_ADDRESSES or not all(_reachable(address) for address in addresses):
        raise ValueError("the addresses of a link")
    if (mtu := int(data.get("mtu", 0))) and not SMALLEST_MTU <= mtu < 65536:
        raise ValueError("the MTU of a link")
    authority, certificate, key, tls_crypt = texts = [
        str(data[name]) for name in ("authority", "certificate", "key", "tls_crypt")
    ]
    if not all(_PEM.fullmatch(text) for text in texts):
        raise ValueError("a certificate or a key of a link")
    return OpenVpn(device, port, addresses, peer, authority, certificate, key, tls_crypt, mtu)


def _reachable(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return bool(HOST_NAME.fullmatch(address))
    return "%" not in address
