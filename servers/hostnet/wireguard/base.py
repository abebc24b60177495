"""WireGuard in three verbs (list, get, set), whatever carries them out: the kernel or a userspace process."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from servers.hostnet.marks import MARK


class WireGuardError(Exception):
    """WireGuard refused a request or cannot be reached. The message names the interface, never a private key."""


@dataclass(frozen=True, slots=True)
class ObservedPeer:
    """A peer as WireGuard has it. ``last_handshake`` is Unix seconds by the clock of then, 0 when there was none."""

    public_key: str
    allowed_ips: frozenset[str]
    endpoint: str
    last_handshake: int
    rx_bytes: int
    tx_bytes: int


@dataclass(frozen=True, slots=True)
class Device:
    """An interface as WireGuard has it; ``public_key`` is empty while it has no private key. ``peers`` by key. ``mark``
    is that of the packets it sends to them, 0: none."""

    name: str
    public_key: str
    port: int
    peers: dict[str, ObservedPeer]
    mark: int = MARK


@dataclass(frozen=True, slots=True)
class PeerChange:
    """Set one peer's allowed IPs (all of them, replacing what it had; ``add``: beside those it has), or remove it.

    ``endpoint`` is ``192.0.2.1:51820`` or ``[2001:db8::1]:51820``, ``keepalive`` whole seconds; empty and 0 leave these
    as they are. Everything else of an existing peer, its session included, stays as it is.
    """

    public_key: str
    allowed_ips: tuple[str, ...] = ()
    remove: bool = False
    add: bool = False
    endpoint: str = ""
    keepalive: int = 0


class Backend(Protocol):
    """What a backend offers. Each method raises ``WireGuardError`` and nothing else for what WireGuard refuses."""

    name: str

    def list(self) -> list[str]:
        """Names of the WireGuard interfaces that this backend sees."""

    def create(self, interface: str) -> None:
        """Make the interface (for userspace: start its process); no error if it is there already."""

    def delete(self, interface: str) -> None:
        """Remove the interface and whatever carries it; no error if it is gone already."""

    def get(self, interface: str) -> Device:
        """The device with all its peers, however many there are."""

    def set(
        self,
        interface: str,
        *,
        private_key: bytes | None = None,
        port: int | None = None,
        mark: int | None = None,
        peers: Iterable[PeerChange] = (),
    ) -> None:
        """Change what is given, many peers at once; leave all else alone."""
