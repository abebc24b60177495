"""What a WireGuard backend offers, whether WireGuard runs in the kernel or in a userspace process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


class BackendError(Exception):
    """WireGuard refused a request or cannot be reached. The message names the interface, never a key."""


@dataclass(frozen=True, slots=True)
class InterfaceConfig:
    """An interface and its one peer. Keys are 32 bytes, ``fwmark`` is set on WireGuard's own packets,
    ``endpoint_address`` is never a name, ``allowed_ips`` are networks like 10.9.0.0/24."""

    private_key: bytes = field(repr=False)
    fwmark: int
    peer_public_key: bytes
    endpoint_address: str
    endpoint_port: int
    allowed_ips: tuple[str, ...]


class Backend(Protocol):
    """``name`` is what ``wgpeer status`` shows."""

    name: str

    def create(self, interface: str) -> None:
        """Create the interface. Raises ``BackendError``, also when the name is taken."""

    def configure(self, interface: str, config: InterfaceConfig) -> None:
        """Give the interface this key and this peer, and remove every other peer. Raises ``BackendError``."""

    def last_handshake(self, interface: str) -> int:
        """Unix seconds of the peer's last handshake, 0 when there was none. Raises ``BackendError``."""
