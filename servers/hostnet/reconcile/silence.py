"""Since when nothing was heard of each peer, by a clock that nobody sets.

WireGuard notes handshakes by the time of day, which somebody may set: an hour forward would make everybody silent, an
hour back nobody. So its times are never compared with now, only with what was read before: what differs was heard
since. It was so at the latest when it was read, so nobody is taken for silent too early, and nobody is for longer than
from one reading to the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from servers.hostnet.state import Interface
from servers.hostnet.wireguard.base import Device, ObservedPeer

from .held import Held

# A WireGuard session that carries packets renews its handshake at least this often (seconds). Nothing heard for longer
# means silence; for less it proves nothing, whatever shorter ping timeout a server has.
HANDSHAKE_LIFE = 180


@dataclass(frozen=True, slots=True)
class _Heard:
    """What WireGuard said of a peer, and when it was first read so; None: it has never been heard."""

    last_handshake: int
    rx_bytes: int
    at: float | None


class Silence:
    """By interface and public key. ``now`` is of one clock that nobody sets."""

    def __init__(self) -> None:
        self._heard: dict[str, Mapping[str, _Heard]] = {}

    def look(self, device: Device, now: float) -> None:
        """Take in what was just read of an interface."""
        before = self._heard.get(device.name, {})
        self._heard[device.name] = {key: _heard(before.get(key), peer, now) for key, peer in device.peers.items()}

    def is_silent(self, held: Held, interface: Interface, now: float) -> bool:
        """Whether nothing was heard of the peer for the interface's ping timeout; since it was added, where it was
        never heard or is not there."""
        found = self._heard.get(interface.name, {}).get(held.peer.public_key)
        heard = found.at if found is not None else None
        return now - (held.since if heard is None else heard) > max(interface.ping_timeout, HANDSHAKE_LIFE)


def _heard(before: _Heard | None, peer: ObservedPeer, now: float) -> _Heard:
    if before is not None and (before.last_handshake, before.rx_bytes) == (peer.last_handshake, peer.rx_bytes):
        return before
    return _Heard(peer.last_handshake, peer.rx_bytes, now if peer.last_handshake or peer.rx_bytes else None)
