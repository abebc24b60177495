"""What a WireGuard backend offers, whatever carries it out: the kernel or a userspace process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


class BackendError(Exception):
    """WireGuard refused or cannot be reached. The message names the interface, never a key."""


@dataclass(frozen=True, slots=True)
class InterfaceConfig:
    """An interface with its one peer. ``endpoint`` is an address, never a name; keys are 32 bytes."""

    private_key: bytes = field(repr=False)
    fwmark: int
    peer_public_key: bytes
    endpoint_address: str
    endpoint_port: int
    allowed_ips: tuple[str, ...]


class Backend(Protocol):
    name: str

    def create(self, interface: str) -> None:
        """Make the interface. Raises ``BackendError``, also when the name is taken."""

    def configure(self, interface: str, config: InterfaceConfig) -> None:
        """Make the interface have exactly this key and this peer; whatever peer it had is gone. Raises
        ``BackendError``."""

    def last_handshake(self, interface: str) -> int:
        """Unix seconds of the peer's last handshake, 0 when there was none. Raises ``BackendError``."""
