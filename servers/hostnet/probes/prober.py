"""Whether addresses behind gateways answer: all of them asked every 2 s, in one thread, and a change reported.

A probe says something of its gateway only if it comes by the tunnel and goes out from the host's own address in it:
an answer from elsewhere is none.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import logging
import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from servers.hostnet.state import HostCondition, HostState, Interface, Peer
from servers.hostnet.subsystem import Stage

log = logging.getLogger("hostnet.probes")

INTERVAL = 2.0  # seconds from one question to the next
LIMIT = 2.0  # seconds for an answer
IN_A_ROW = 3  # as many make a change: with the two above, silence is known after 8 s at the latest
REPEAT = 50.0  # seconds after which a full state has a target's state said again, should the report have been lost
# Questions of TCP that are open at once, each of which is a file. When more than these are silent, all take turns.
MOST_TCP = 400
# The fault is this host's own: it says nothing of the gateway.
OWN_FAULTS = {errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
IDLE = 60.0  # seconds to wait when there is nothing to ask


@dataclass(frozen=True, slots=True)
class Target:
    """``address`` behind the peer ``connection`` on ``interface``, asked from ``source``: by TCP at ``port``, or by
    ICMP where that is 0. ``network`` is what it speaks for."""

    interface: str
    source: str
    connection: str
    network: str
    address: str
    port: int


class Asking(Protocol):
    """What the prober needs of ``probe_sockets.Sockets``. Only ``wake`` may be called from another thread."""

    def ask(self, number: int, target: Target) -> bool:
        """Send question ``number``; false if there is no way to ask (nothing is known then). Raise ``OSError`` when it
        cannot be sent (as good as no answer)."""

    def wait(self, seconds: float) -> list[tuple[int, bool]]:
        """Wait at most that long for answers: numbers of questions, and whether what was asked for is there."""

    def forget(self, number: int) -> None:
        """Nobody waits for this answer any more."""

    def wake(self) -> None:
        """End a ``wait``, or the next one."""

    def close(self) -> None: ...


class Reporter(Protocol):
    """What the prober needs of ``agent.channel.Channel``."""

    def report(self, kind: str, **fields: Any) -> None:
        """Send a report, or keep it until Redis is back. Never raises."""


class Health:
    """What is known of one target. ``said`` is what was reported last, None before the first report; ``turn`` is its
    place among those that are due."""

    def __init__(self, turn: int) -> None:
        self.turn = turn
        self.said: bool | None = None
        self.said_at = 0.0
        self._answer: bool | None = None
        self._row = 0

    def take(self, answer: bool) -> bool:
        """Note one answer; whether it is the last of as many as make a change."""
        self._row = self._row + 1 if answer is self._answer else 1
        self._answer = answer
        return self._row >= IN_A_ROW and answer is not self.said


class Prober:
    """A ``Subsystem`` that asks every ``Peer.probes``, and reports ``probe`` to the control side."""

    stage = Stage.FOLLOWER

    def __init__(self, reporter: Reporter, asking: Asking, clock: Callable[[], float] = time.monotonic) -> None:
        self._reporter = reporter
        self._asking = asking
        self._clock = clock
        # Shared with the thread that applies changes.
        self._lock = threading.Lock()
        self._desired: dict[tuple[str, str], tuple[Target, ...]] = {}
        self._changed = self._repeat = self._stopping = False
        # The asking thread's own.
        self._health: dict[Target, Health] = {}
        self._numbers = itertools.count(1)
        self._due: list[tuple[float, int, Target]] = []  # a heap, by time and turn
        self._queue: deque[tuple[int, Target]] = deque()  # due, by TCP: first come, first asked
        self._open: OrderedDict[int, tuple[Target, float]] = OrderedDict()  # questions, with the end of their time
        self._open_tcp = 0
        # Redis may be slow, and answers do not wait.
        self._reports: queue.SimpleQueue[tuple[Target, bool] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name="probes", daemon=True),
            threading.Thread(target=self._report, name="probe reports", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads, which must have been started."""
        self._stopping = True
        self._asking.wake()
        self._reports.put(None)
        for thread in self._threads:
            thread.join(LIMIT + 5)

    # What there is to ask, from the dispatcher

    def apply(self, state: HostState) -> None:
        desired = {
            (interface.server, peer.connection): _targets(interface, peer)
            for interface in state.interfaces
            for peer in interface.peers
            if peer.probes
        }
        with self._lock:
            self._desired, self._changed, self._repeat = desired, True, True
        self._asking.wake()

    def change(self, interface: Interface, gone: Sequence[Peer], new: Sequence[Peer]) -> None:
        off = [peer for peer in gone if peer.probes]
        on = [peer for peer in new if peer.probes]
        if not off and not on:
            return
        with self._lock:
            for peer in off:
                self._desired.pop((interface.server, peer.connection), None)
            for peer in on:
                self._desired[interface.server, peer.connection] = _targets(interface, peer)
            self._changed = True
        self._asking.wake()

    def preview(self, state: HostState) -> list[str]:
        """Nothing: what is asked leaves no trace on the host."""
        return []

    def drift(self) -> list[str]:
        """Nothing: there is nothing that others could change."""
        return []

    def conditions(self) -> list[HostCondition]:
        """Nothing: a gateway that is silent is reported by itself, and no fault of the host's."""
        return []

    # Asking

    def step(self) -> float:
        """One turn without waiting: what changed, what found no answer, what is to be asked. Return the seconds until
        there is more to do."""
        now = self._clock()
        self._take_changes(now)
        while self._open and next(iter(self._open.values()))[1] <= now:
            number = next(iter(self._open))
            self._asking.forget(number)
            self._answered(number, False, now)
        while self._due and self._due[0][0] <= now:
            _, turn, target = heapq.heappop(self._due)
            if target.port:
                self._queue.append((turn, target))
            else:
                self._ask(turn, target, now)
        while self._queue and self._open_tcp < MOST_TCP:
            self._ask(*self._queue.popleft(), now)
        moments = [*(due for due, _, _ in self._due[:1]), *(end for _, end in itertools.islice(self._open.values(), 1))]
        return max(0.0, min(moments, default=now + IDLE) - now)

    def hear(self, seconds: float) -> None:
        """Wait for answers and take them. They come before ``step``, so that one which is here is never taken for one
        that is missing, however late we are."""
        for number, ok in self._asking.wait(seconds):
            self._answered(number, ok, self._clock())

    def _ask(self, turn: int, target: Target, now: float) -> None:
        health = self._health.get(target)
        if health is None or health.turn != turn:
            return  # it is gone; or gone and back, and has another turn
        heapq.heappush(self._due, (now + INTERVAL, turn, target))
        number = next(self._numbers)
        self._open[number] = (target, now + LIMIT)
        self._open_tcp += bool(target.port)
        try:
            if not self._asking.ask(number, target):
                self._closed(number)
        except OSError as error:
            log.debug("probe of %s: %s", target.address, error)
            if error.errno in OWN_FAULTS:
                self._closed(number)
            else:
                self._answered(number, False, now)

    def _closed(self, number: int) -> Target | None:
        target, _ = self._open.pop(number, (None, 0.0))
        self._open_tcp -= bool(target and target.port)
        return target

    def _answered(self, number: int, ok: bool, now: float) -> None:
        target = self._closed(number)
        health = self._health.get(target) if target is not None else None
        if target is not None and health is not None and health.take(ok):
            health.said = ok
            self._say(target, health, now)

    def _take_changes(self, now: float) -> None:
        with self._lock:
            if not self._changed:
                return
            desired = {target for targets in self._desired.values() for target in targets}
            repeat, self._changed, self._repeat = self._repeat, False, False
        self._health = {target: health for target, health in self._health.items() if target in desired}
        # Spread over the interval, so that a thousand are not asked in one moment, every other second.
        new = sorted(desired - self._health.keys(), key=str)
        for place, target in enumerate(new):
            self._health[target] = Health(next(self._numbers))
            heapq.heappush(self._due, (now + INTERVAL * place / len(new), self._health[target].turn, target))
        for target, health in self._health.items() if repeat else ():
            if health.said is not None and now - health.said_at >= REPEAT:
                self._say(target, health, now)

    def _say(self, target: Target, health: Health, now: float) -> None:
        health.said_at = now
        self._reports.put((target, bool(health.said)))

    # Threads

    def _run(self) -> None:
        while not self._stopping:
            try:
                self.hear(self.step())
            except Exception:
                # Whatever it was, probes that stop would leave a silent gateway in its place for ever.
                log.exception("probes: the next turn tries again")
                time.sleep(1)
        self._asking.close()

    def _report(self) -> None:
        while (report := self._reports.get()) is not None:
            target, ok = report
            log.info("%s behind %s %s", target.address, target.connection, "answers" if ok else "does not answer")
            self._reporter.report("probe", connection=target.connection, network=target.network, ok=ok)


def _targets(interface: Interface, peer: Peer) -> tuple[Target, ...]:
    """Asked from the gateway's own address of the same family; without one there is no way to ask."""
    sources = {":" in address: address.partition("/")[0] for address in interface.addresses}
    return tuple(
        Target(interface.name, sources[six], peer.connection, probe.network, probe.address, probe.port)
        for probe in peer.probes
        if (six := ":" in probe.address) in sources
    )
