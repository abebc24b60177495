"""Where the packets for each machine of the mesh go, and when to look for it anew.

WireGuard follows whoever sends by itself, so as long as a machine is heard nothing is done: it may be behind NAT, where
none of the addresses that we know leads to it. One that is not heard is looked for at each address that it may have, in
turn, and names are looked up anew each time: after a change of address either end finds the other.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from servers.hostnet.state import MeshPeer
from servers.hostnet.wireguard.base import Device, ObservedPeer, PeerChange

TRY_EVERY = 15.0  # seconds; WireGuard begins a handshake anew every 5
# A machine shakes hands every two minutes. Without one for so many seconds it is not heard.
UNHEARD = 150.0
# So it is when this much was sent to it, in bytes, and nothing came back for so many seconds: WireGuard answers data
# within 10 s by itself. Keepalives alone are less.
IN_VAIN, IN_VAIN_FOR = 200, 30.0


@dataclass(slots=True)
class _Heard:
    """What was last heard of one peer, and how much had been sent to it by then. ``tried`` is when it was last looked
    for."""

    handshake: int
    received: int
    sent: int
    at: float
    tried: float = float("-inf")
    turn: int = 0


class Endpoints:
    """One thread at a time, ``find`` excepted, which takes its time and changes nothing."""

    def __init__(self, resolve: Callable[[str], list[str]] | None = None) -> None:
        self._resolve = resolve or addresses_of
        self._heard: dict[str, _Heard] = {}  # by public key

    def lost(self, device: Device, peers: Iterable[MeshPeer], now: float) -> list[tuple[MeshPeer, ObservedPeer, int]]:
        """The peers that are to be looked for now, how they are, and how often they were looked for since they were
        heard."""
        found = []
        known: dict[str, _Heard] = {}
        for peer in peers:
            there = device.peers.get(peer.public_key)
            if there is None:
                continue
            heard = known[peer.public_key] = self._listen(there, now)
            if peer.endpoints and now - heard.tried >= TRY_EVERY and self._is_lost(there, heard, now):
                heard.tried, heard.turn = now, heard.turn + 1
                found.append((peer, there, heard.turn - 1))
        self._heard = known
        return found

    def _listen(self, there: ObservedPeer, now: float) -> _Heard:
        heard = self._heard.get(there.public_key)
        same = heard is not None and (heard.handshake, heard.received) == (there.last_handshake, there.rx_bytes)
        if heard is not None and same:
            return heard
        tried = heard.tried if heard is not None else float("-inf")
        return _Heard(there.last_handshake, there.rx_bytes, there.tx_bytes, now, tried)

    def _is_lost(self, there: ObservedPeer, heard: _Heard, now: float) -> bool:
        if not there.endpoint or not there.last_handshake:
            return True
        silent = now - heard.at
        return silent > UNHEARD or (silent > IN_VAIN_FOR and there.tx_bytes - heard.sent >= IN_VAIN)

    def find(self, lost: Iterable[tuple[MeshPeer, ObservedPeer, int]]) -> list[PeerChange]:
        """Where to send to each from now on. Looks names up, which may take long."""
        changes = []
        for peer, there, turn in lost:
            ways = [way for endpoint in peer.endpoints for way in self._resolve(endpoint)]
            if ways and ways[turn % len(ways)] != there.endpoint:
                changes.append(PeerChange(peer.public_key, add=True, endpoint=ways[turn % len(ways)]))
        return changes


def addresses_of(endpoint: str) -> list[str]:
    """``address:port`` or ``name:port`` as WireGuard takes it; none where the name is not known now."""
    host, _, port = endpoint.rpartition(":")
    try:
        return [written(str(ipaddress.ip_address(host.strip("[]"))), port)]
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(written(str(each[4][0]), port) for each in found))


def written(address: str, port: int | str) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
