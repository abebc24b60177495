"""Names of clients, and DNS for them: one unbound per server that has ``Interface.dns``, fed with the names of all its
clients, on whichever host they are."""

from __future__ import annotations

import dataclasses
import logging
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from servers.hostnet.state import Code, HostCondition, HostState, Interface, Peer, Remote
from servers.hostnet.subsystem import Stage

from . import config, control, unbound
from .control import DnsError
from .records import TTL, Changes, Records, line
from .unbound import Unbound

log = logging.getLogger("hostnet.dns")

LOOK_EVERY = 0.5  # seconds until a dead unbound is noticed
LOOK_CLOSELY_EVERY = 10.0  # seconds until one that hangs is noticed, and what changed in the host's own resolvers
SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds until the next attempt to start one that does not start
SHORT_LIFE = 5.0  # seconds; one that dies younger has not started well, and is not started again at once

cleanup = unbound.cleanup


@dataclass(frozen=True, slots=True)
class Change:
    gone: Sequence[Peer | Remote]
    new: Sequence[Peer | Remote]


@dataclass(frozen=True, slots=True)
class Zone:
    """All of one server: its interface, and who has names, here and on other hosts."""

    interface: Interface
    named: tuple[Peer | Remote, ...]


LOOK = Change((), ())  # nothing new: see to it that all is well
Order = Zone | Change | None  # the whole of it; a change of its peers; the end of the thread


class Resolvers:
    """A ``Subsystem``: keeps a resolver for every server that wants one. Each has a thread of its own, so that no
    server's names wait for another's."""

    stage = Stage.FOLLOWER

    def __init__(self) -> None:
        self._resolvers: dict[str, Resolver] = {}  # by interface
        self._told: dict[str, list[str]] = {}  # by server: interfaces whose resolvers know its clients
        self._removed: list[Resolver] = []  # the threads of those that are being taken down
        self._swept = False

    def apply(self, state: HostState) -> None:
        desired, self._told = _with_dns(state), _told(state)
        for name in self._resolvers.keys() - desired.keys():
            self._removed.append(self._resolvers.pop(name))
            self._removed[-1].remove()
        self._removed = [each for each in self._removed if each.thread.is_alive()]
        for name, zone in desired.items():
            if name not in self._resolvers:
                before = next((each.thread for each in reversed(self._removed) if each.interface == name), None)
                self._resolvers[name] = Resolver(name, before)
                self._resolvers[name].thread.start()
            self._resolvers[name].give(zone)
        if not self._swept:
            self._swept = True
            threading.Thread(target=_sweep, args=[desired.keys()], name="dns-sweep", daemon=True).start()

    def change(self, interface: Interface, gone: Sequence[Peer], new: Sequence[Peer]) -> None:
        self._tell(interface.server, Change(gone, new))

    def change_remotes(self, server: str, gone: Sequence[Remote], new: Sequence[Remote]) -> None:
        self._tell(server, Change(gone, new))

    def _tell(self, server: str, change: Change) -> None:
        for name in self._told.get(server, ()):
            self._resolvers[name].give(change)

    def preview(self, state: HostState) -> list[str]:
        """As ``Subsystem`` says; compared with what unbound itself says it has."""
        desired = _with_dns(state)
        lines = [f"{name}: end its DNS server" for name in sorted(self._resolvers.keys() - desired.keys())]
        for name, zone in sorted(desired.items(), key=lambda item: item[0]):
            resolver = self._resolvers.get(name)
            lines += resolver.preview(zone) if resolver else [f"{name}: start its DNS server"]
        return lines

    def drift(self) -> list[str]:
        """Nothing: whoever ended an unbound is not waited for, and finds it started again."""
        return []

    def conditions(self) -> list[HostCondition]:
        resolvers = [*self._resolvers.values(), *self._removed]
        return [
            HostCondition.of(Code.DNS_FAILED, f"{each.interface}: no DNS for clients: {message}")
            for each in resolvers
            if (message := each.trouble)
        ]

    def stop(self) -> None:
        """End the threads. What runs goes on answering, as tunnels do, until a later run replaces it."""
        for resolver in self._resolvers.values():
            resolver.give(None)
        for resolver in self._resolvers.values():
            resolver.thread.join(unbound.START_WITHIN)


def _with_dns(state: HostState) -> dict[str, Zone]:
    """By the interface's name."""
    clients: defaultdict[str, list[Peer | Remote]] = defaultdict(list)
    for interface in state.interfaces:
        clients[interface.server] += interface.peers
    for remote in state.remotes:
        clients[remote.server].append(remote)
    return {
        interface.name: Zone(
            dataclasses.replace(interface, peers=()),
            tuple(each for server in _known_to(interface) for each in clients[server]),
        )
        for interface in state.interfaces
        if interface.dns is not None
    }


def _known_to(interface: Interface) -> list[str]:
    """The servers whose clients the interface's resolver knows."""
    return [interface.server, *(link.server for link in interface.links if link.zone)]


def _told(state: HostState) -> dict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for interface in state.interfaces:
        for server in _known_to(interface) if interface.dns is not None else ():
            found[server].append(interface.name)
    return dict(found)


def _sweep(desired: set[str]) -> None:
    """End what an earlier run left for servers that are no longer here."""
    for interface in unbound.left() - desired:
        try:
            unbound.remove(interface)
        except (DnsError, OSError) as error:
            log.warning("%s", error)


class Resolver:
    """One server's unbound, kept running and fed by a thread."""

    def __init__(
        self,
        interface: str,
        before: threading.Thread | None = None,
        host_resolvers: Callable[[], list[str]] = config.host_resolvers,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.interface = interface
        self.thread = threading.Thread(target=self._run, name=f"dns-{interface}", daemon=True)
        # Said at once, since the host's report does not wait for this thread.
        self._problem = "" if unbound.PROGRAM.exists() else "unbound is not installed"
        self._before = before
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._removing = threading.Event()
        self._host_resolvers = host_resolvers
        self._clock = clock
        self._records = Records()
        self._desired: Interface | None = None
        self._unbound: Unbound | None = None
        self._configuration = ""
        self._resolvers: list[str] = []
        self._looked_closely = float("-inf")
        self._not_before = float("-inf")
        self._pause = SHORTEST_PAUSE
        self._started = float("-inf")

    @property
    def trouble(self) -> str:
        """What is wrong now, in words, or empty."""
        running = self._unbound
        return self._problem or (running.complaint if running is not None else "")

    def preview(self, zone: Zone) -> list[str]:
        """In words, what would change to make it as ``zone`` says."""
        running, configuration = self._unbound, self._text(zone.interface)
        if running is None or not running.alive:
            return [f"{self.interface}: start its DNS server"]
        if configuration != self._configuration:
            return [f"{self.interface}: start its DNS server with another configuration"]
        records = Records()
        records.replace(zone.named)
        desired = {line(record) for record in records.all()}
        try:
            observed = control.given(running.socket, TTL)
        except DnsError as error:
            return [f"{self.interface}: start its DNS server again: {error}"]
        counts = {"to add": len(desired - observed), "to remove": len(observed - desired)}
        differs = ", ".join(f"{what}: {count}" for what, count in counts.items() if count)
        return [f"{self.interface}: DNS records {differs}"] if differs else []

    def give(self, order: Order) -> None:
        """Take an order; carried out in its turn."""
        self._orders.put(order)

    def remove(self) -> None:
        """End unbound, and then the thread."""
        self._removing.set()
        self.give(None)

    def _run(self) -> None:
        if self._before is not None:  # it is taking down what has our name
            self._before.join()
        while True:
            try:
                order = self._orders.get(timeout=LOOK_EVERY)
            except queue.Empty:
                order = LOOK
            if order is None:
                break
            self._turn(order)
        if self._removing.is_set():
            self._take_down()

    def _turn(self, order: Zone | Change) -> None:
        """Make it so; whatever fails, a later turn begins anew with all names."""
        try:
            changes = self._take(order)
            if not self._is_running():
                self._start()
            elif changes and self._unbound is not None:
                _feed(self._unbound, changes)
        except (DnsError, OSError) as error:
            self._failed(str(error))
        except Exception as error:
            # Whatever it was, without this thread there would be no names ever after.
            log.exception("%s: a turn failed", self.interface)
            self._failed(type(error).__name__)

    def _take(self, order: Zone | Change) -> Changes:
        if isinstance(order, Change):
            return self._records.change(order.gone, order.new)
        self._desired = order.interface
        return self._records.replace(order.named)

    def _is_running(self) -> bool:
        """Whether unbound runs with the configuration that it should have."""
        now = self._clock()
        close = now - self._looked_closely >= LOOK_CLOSELY_EVERY
        if close:
            self._resolvers, self._looked_closely = self._host_resolvers(), now
        if self._unbound is None:
            return False
        if not self._unbound.alive:
            if now - self._started < SHORT_LIFE:
                raise DnsError(f"unbound died: {self._unbound.last_words}")
            log.warning("%s: unbound died: %s", self.interface, self._unbound.last_words)
            return False
        if now - self._started >= SHORT_LIFE:
            self._pause = SHORTEST_PAUSE
        if close:
            control.ask(self._unbound.socket, "status")
        return self._configuration == self._new_configuration()

    def _new_configuration(self) -> str:
        return self._text(self._desired) if self._desired is not None else ""

    def _text(self, interface: Interface) -> str:
        if interface.dns is None:
            return ""
        return config.text(interface, interface.dns, unbound.socket_path(self.interface), self._resolvers)

    def _start(self) -> None:
        configuration = self._new_configuration()
        if not configuration or self._clock() < self._not_before:
            return
        self._drop()
        self._configuration = configuration
        self._unbound, self._started = unbound.start(self.interface, configuration), self._clock()
        _feed(self._unbound, Changes(added=self._records.all()))
        self._problem = ""
        log.info("%s: unbound runs", self.interface)

    def _failed(self, message: str) -> None:
        if message != self._problem:
            log.error("%s: %s", self.interface, message)
        self._problem = message
        self._not_before = self._clock() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._drop()

    def _drop(self) -> None:
        if self._unbound is not None:
            self._unbound.end()
            self._unbound = None

    def _take_down(self) -> None:
        try:
            self._drop()
            unbound.remove(self.interface)
            self._problem = ""
        except (DnsError, OSError) as error:
            self._problem = str(error)


def _feed(running: Unbound, changes: Changes) -> None:
    control.remove(running.socket, changes.removed)
    control.add(running.socket, changes.lines())
