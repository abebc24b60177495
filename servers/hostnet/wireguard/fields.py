"""What both backends share: interface names, public keys and allowed IPs, checked before they go anywhere."""

from __future__ import annotations

import binascii
import socket
import struct
from typing import NamedTuple

from servers.hostnet.state.names import INTERFACE

from .base import WireGuardError

KEY_BYTES = 32


class AllowedIP(NamedTuple):
    """One network: ``family`` is AF_INET or AF_INET6, ``packed`` its 4 or 16 bytes, ``prefix`` its length in bits."""

    family: int
    packed: bytes
    prefix: int

    def __str__(self) -> str:
        return f"{socket.inet_ntop(self.family, self.packed)}/{self.prefix}"


def check_interface(name: str) -> str:
    """``name``, when it can be an interface's name and is safe in a path and on a command line."""
    if not INTERFACE.fullmatch(name):
        raise WireGuardError(f"{name[:40]!r} cannot be the name of an interface")
    return name


def check_settings(interface: str, private_key: bytes | None, port: int | None) -> None:
    """Raise ``WireGuardError`` for a private key or UDP port (0: any) that cannot be one. It does not show the key."""
    if private_key is not None and len(private_key) != KEY_BYTES:
        raise WireGuardError(f"{interface}: a private key has {KEY_BYTES} bytes, this one {len(private_key)}")
    if port is not None and not 0 <= port <= 0xFFFF:
        raise WireGuardError(f"{interface}: {port} is no UDP port")


def link_index(name: str) -> int:
    """The link's index in this process's network namespace, 0 when there is no such link."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def key_bytes(public_key: str) -> bytes:
    """The 32 bytes of a base64 key. Only the canonical text is taken: a peer has one name, not four."""
    try:
        raw = binascii.a2b_base64(public_key.encode("ascii"))
    except ValueError:
        raw = b""
    if len(raw) != KEY_BYTES or key_text(raw) != public_key:
        raise WireGuardError(f"{public_key[:60]!r} is not a WireGuard public key")
    return raw


def key_text(raw: bytes) -> str:
    """Standard base64 of a key's 32 bytes."""
    return binascii.b2a_base64(raw, newline=False).decode("ascii")


def allowed_ip(text: str) -> AllowedIP:
    """Read ``10.9.0.5/32`` or ``fd00::5/128``. Strict, since it comes from another machine and ends in a request."""
    address, _, bits = text.partition("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        packed = socket.inet_pton(family, address)
        prefix = int(bits) if bits.isascii() and bits.isdecimal() and len(bits) <= 3 else -1
    except (OSError, ValueError):
        packed, prefix = b"", -1
    if not 0 <= prefix <= len(packed) * 8:
        raise WireGuardError(f"{text[:60]!r} is not a network in prefix notation")
    return AllowedIP(family, packed, prefix)


def endpoint_text(sockaddr: bytes) -> str:
    """``192.0.2.1:51820`` or ``[2001:db8::1]:51820`` of a C sockaddr; empty when it is neither IPv4 nor IPv6."""
    (family,) = struct.unpack_from("=H", sockaddr)
    (port,) = struct.unpack_from(">H", sockaddr, 2)
    if family == socket.AF_INET:
        return f"{socket.inet_ntop(family, sockaddr[4:8])}:{port}"
    if family == socket.AF_INET6:
        return f"[{socket.inet_ntop(family, sockaddr[8:24])}]:{port}"
    return ""


def endpoint_bytes(text: str) -> bytes:
    """The C sockaddr of ``192.0.2.1:51820`` or ``[2001:db8::1]:51820``."""
    address, _, port = text.rpartition(":")
    bracketed = address.startswith("[") and address.endswith("]")
    number = int(port) if port.isascii() and port.isdecimal() and len(port) <= 5 else 0
    try:
        packed = socket.inet_pton(socket.AF_INET6 if bracketed else socket.AF_INET, address.strip("[]"))
    except (OSError, ValueError):
        packed = b""
    if not packed or not 0 < number <= 0xFFFF:
        raise WireGuardError(f"{text[:60]!r} is not an address and a port")
    if bracketed:
        return struct.pack("=H", socket.AF_INET6) + struct.pack(">HI", number, 0) + packed + bytes(4)
    return struct.pack("=H", socket.AF_INET) + struct.pack(">H", number) + packed + bytes(8)
