"""Whether the other machines of the mesh answer, and how soon: each is asked by one small packet through the mesh.

WireGuard's handshakes alone tell of a cut link after minutes. A thread of its own asks, so neither the heartbeat nor
what is applied waits for an answer.
"""

from __future__ import annotations

import ipaddress
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from servers.hostnet.clock import steady
from servers.hostnet.probes.prober import OWN_FAULTS, Asking, Target
from servers.hostnet.state import MESH_INTERFACE, Mesh, MeshPeer
from servers.hostnet.state.reach import Reach
from servers.hostnet.wireguard.base import Device, ObservedPeer

log = logging.getLogger("hostnet.mesh")

ASK_EVERY = 2.0  # seconds, as often as a heartbeat says what came of it
LIMIT = 2.0  # seconds for an answer
IN_A_ROW = 3  # as many without an answer make a way cut: known after 8 s at the latest. One answer, and it is back


@dataclass(slots=True)
class _Known:
    """What is known of one machine. Times are by the steady clock; ``silent`` counts questions without an answer."""

    since: float
    answers: bool | None = None
    round_trip: float | None = None
    silent: int = 0
    handshake: int = 0
    shaken: float | None = None

    def take(self, seconds: float | None, now: float) -> None:
        """One answer after ``seconds``; None: none came."""
        self.silent = 0 if seconds is not None else self.silent + 1
        if seconds is not None:
            self.round_trip = seconds
        if seconds is None and self.silent < IN_A_ROW:
            return
        if self.answers is not (seconds is not None):
            self.answers, self.since = seconds is not None, now

    def shake(self, handshake: int, now: float, age: float, looked: float | None) -> None:
        """WireGuard says its last handshake as a time of day, which may be set: one that is new since we looked last is
        no older than that."""
        if handshake == self.handshake:
            return
        newest = max(0.0, age) if looked is None else min(max(0.0, age), now - looked)
        self.handshake, self.shaken = handshake, now - newest if handshake else None


class Reaching:
    """``look`` gives the mesh as it is desired and WireGuard's device as it was last read. Threads may ask ``ways``."""

    def __init__(
        self,
        look: Callable[[], tuple[Mesh | None, Device | None]],
        asking: Asking,
        clock: Callable[[], float] = steady,
        time_of_day: Callable[[], float] = time.time,
    ) -> None:
        self._look, self._asking = look, asking
        self._clock, self._time_of_day = clock, time_of_day
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._peers: dict[str, ObservedPeer] = {}
        self._device: Device | None = None
        self._looked: float | None = None  # when the device was another one last

    def start(self) -> None:
        """Go on in a thread that ends with the process."""
        threading.Thread(target=self._run, name="reach", daemon=True).start()

    def _run(self) -> None:
        while True:
            began = self._clock()
            try:
                self.step()
            except Exception:
                # Whatever it was, the other machines are asked again: nobody else says which way is cut.
                log.exception("the other machines could not be asked")
            time.sleep(max(0.0, ASK_EVERY - (self._clock() - began)))

    def step(self) -> None:
        """Ask every other machine once. Takes ``LIMIT`` at most."""
        mesh, device = self._look()
        peers = {peer.host: peer for peer in mesh.peers} if mesh is not None else {}
        with self._lock:
            now = self._clock()
            self._known = {host: self._known.get(host) or _Known(now) for host in peers}
            self._note(peers, device, now)
            silent = {host: known.silent for host, known in self._known.items()}
        found = ask(self._asking, targets(mesh, silent) if mesh is not None else {}, self._numbers, LIMIT, self._clock)
        with self._lock:
            now = self._clock()
            for host, seconds in found.items():
                self._known[host].take(seconds, now)

    def _note(self, peers: Mapping[str, MeshPeer], device: Device | None, now: float) -> None:
        if device is self._device:
            return
        there = device.peers if device is not None else {}
        self._peers = {host: there[peer.public_key] for host, peer in peers.items() if peer.public_key in there}
        for host, peer in self._peers.items():
            age = self._time_of_day() - peer.last_handshake
            self._known[host].shake(peer.last_handshake, now, age, self._looked)
        self._device, self._looked = device, now

    def ways(self) -> dict[str, Reach]:
        """By host, as it is known now. Waits for nothing."""
        with self._lock:
            now = self._clock()
            return {host: self._way(host, known, now) for host, known in self._known.items()}

    def _way(self, host: str, known: _Known, now: float) -> Reach:
        peer = self._peers.get(host)
        return Reach(
            answers=known.answers,
            since=round(now - known.since, 1),
            round_trip=None if known.round_trip is None else round(known.round_trip, 6),
            handshake=None if known.shaken is None else round(now - known.shaken, 1),
            received=peer.rx_bytes if peer is not None else 0,
            sent=peer.tx_bytes if peer is not None else 0,
        )


def targets(mesh: Mesh, silent: Mapping[str, int]) -> dict[str, Target]:
    """Whom to ask, by host. One that does not answer is asked at its next address: while the network of the mesh is
    being changed it may not have heard of that yet. ``silent``: how often it did not answer."""
    found = {}
    for peer in mesh.peers:
        if not peer.addresses:
            continue
        address = _alone(peer.addresses[silent.get(peer.host, 0) % len(peer.addresses)])
        if source := _nearest(address, map(_alone, mesh.addresses)):
            found[peer.host] = Target(MESH_INTERFACE, source, "", "", str(address), 0)
    return found


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _alone(text: str) -> Address:
    return ipaddress.ip_interface(text).ip


def _nearest(address: Address, own: Iterable[Address]) -> str:
    """Of our own the one in the same network; empty where there is none of its family."""
    family = [each for each in own if each.version == address.version]
    return str(min(family, key=lambda each: int(each) ^ int(address))) if family else ""


def ask(
    asking: Asking, whom: Mapping[str, Target], numbers: Iterator[int], within: float, clock: Callable[[], float]
) -> dict[str, float | None]:
    """Ask all at once, and wait for answers: seconds until each came, None where none did. Of whom it is not in it
    nothing could be found out, by a fault of this machine's own."""
    waiting: dict[int, tuple[str, float]] = {}
    found: dict[str, float | None] = {}
    for host, target in whom.items():
        number = next(numbers)
        waiting[number] = host, clock()
        try:
            sent = asking.ask(number, target)
        except OSError as error:
            sent = False
            if error.errno not in OWN_FAULTS:  # there is no way to it
                found[host] = None
        if not sent:
            del waiting[number]
    until = clock() + within
    while waiting and (left := until - clock()) > 0:
        for number, _answered in asking.wait(left):
            if number in waiting:
                host, began = waiting.pop(number)
                found[host] = clock() - began
    for number, (host, _began) in waiting.items():
        asking.forget(number)
        found[host] = None
    return found
