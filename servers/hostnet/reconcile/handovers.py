"""Peers that are to take another's place once they have made their first handshake.

WireGuard has one peer to an address. Were it the new one's from the moment that it is made, all that goes to the client
would be lost until its handshake, and so would all that it still sends by the old key. So the new peer is made without
an address, which is enough for a handshake, and what it replaces goes on until then.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping

from servers.hostnet.state import AddPeer
from servers.hostnet.wireguard.base import Backend, PeerChange, WireGuardError

from .desired import Desired

log = logging.getLogger("hostnet.apply")


class Handovers:
    """By connection the message that waits, and until when; in seconds of a clock that nobody sets. Until then
    ``desired`` knows nothing of it. One thread at a time, save for ``ready``."""

    def __init__(self, desired: Desired, backend: Backend) -> None:
        self._desired = desired
        self._backend = backend
        self._steady = desired.peers.lingering.steady
        self._waiting: dict[str, tuple[AddPeer, float]] = {}

    def begin(self, message: AddPeer) -> bool:
        """Have WireGuard make the peer without an address; false where it is to be added as any other."""
        if message.peer.connection in self._waiting:
            return True
        interface = self._desired.interface(message.server)
        if not message.hand_over or interface is None or not self._desired.may_follow(message):
            return False
        try:
            self._backend.set(interface.name, peers=[PeerChange(message.peer.public_key)])
        except WireGuardError:
            return False  # whoever adds it says so
        self._waiting[message.peer.connection] = (message, self._steady() + message.hand_over)
        return True

    def end(self, connections: Iterable[str], now: float) -> None:
        """Those of ``connections`` that wait do so no longer: they are desired, in the place of what they replace.
        ``now`` is by the applier's clock."""
        for message in [self._waiting.pop(each)[0] for each in connections if each in self._waiting]:
            interface = self._desired.interface(message.server)
            if self._desired.add(message, now) and interface is not None:
                # It has ended meanwhile, and nobody else knows of what was made for it.
                self._remove(interface.name, message.peer.public_key)

    def end_all(self, now: float) -> None:
        self.end([*self._waiting], now)

    def _remove(self, interface: str, public_key: str) -> None:
        try:
            self._backend.set(interface, peers=[PeerChange(public_key, remove=True)])
        except WireGuardError as error:
            log.warning("%s: %s", interface, error)  # the next full state finds it

    def places(self) -> dict[str, tuple[str, str]]:
        """Interface and public key, by connection."""
        names = self._desired.names()
        return {
            connection: (names.get(message.server, ""), message.peer.public_key)
            for connection, (message, _) in self._waiting.items()
        }

    def ready(self, places: Mapping[str, tuple[str, str]]) -> list[str]:
        """Of these connections those that have waited long enough, or have made their handshake."""
        shaken = {name: self._with_a_handshake(name) for name, _ in places.values() if name}
        now = self._steady()
        over = {connection for connection, (_, until) in [*self._waiting.items()] if until <= now}
        return [each for each, (name, key) in places.items() if each in over or key in shaken.get(name, ())]

    def _with_a_handshake(self, interface: str) -> Collection[str]:
        try:
            return {key for key, peer in self._backend.get(interface).peers.items() if peer.last_handshake}
        except WireGuardError as error:
            log.warning("reading %s: %s", interface, error)
            return ()

    def __contains__(self, connection: object) -> bool:
        return connection in self._waiting

    def __len__(self) -> int:
        return len(self._waiting)
