"""Make the host what it should be: read, plan, carry out, report.

Every apply may be repeated. What fails is reported and left for the next one; what succeeded is kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from servers.hostnet.clock import steady
from servers.hostnet.netlink.conntrack import ConntrackError
from servers.hostnet.netlink.links import LinkError
from servers.hostnet.observed import Observed
from servers.hostnet.state import (
    AddPeer,
    AddRemotes,
    Code,
    HostCondition,
    HostState,
    Interface,
    RemovePeers,
    RemoveRemotes,
)
from servers.hostnet.subsystem import Subsystem, SubsystemError, Subsystems
from servers.hostnet.wireguard.base import Backend, WireGuardError

from .contest import Contest
from .describe import describe, intend
from .desired import Desired
from .executor import HOST_ERRORS, Executor, Failures, LinkTools
from .handovers import Handovers
from .held import Difference, Gone
from .link_collisions import LastCollisions, link_collisions, without
from .link_collisions import conditions as collided
from .plan import plan
from .reported import BatchReport, FullReport
from .route_conflicts import free_of_conflict
from .silence import Silence

log = logging.getLogger("hostnet.apply")

Change = AddPeer | RemovePeers | AddRemotes | RemoveRemotes


class Applier:
    """Everything that changes this host. Its methods lock each other out, so that threads may share it: the dispatcher
    with its messages, the watch over what others do, and what goes by time."""

    def __init__(
        self,
        desired: Desired,
        backend: Backend,
        links: LinkTools,
        key_dir: Path,
        flush: Callable[[Collection[str]], int],
        subsystems: Iterable[Subsystem],
        clock: Callable[[], float] = steady,
        shut: Callable[[], None] = lambda: None,
    ) -> None:
        self._lock = threading.Lock()
        self._desired = desired
        self._backend = backend
        self._executor = Executor(backend, links, key_dir)
        self._flush = flush
        self._subsystems = Subsystems(subsystems)
        self._clock = clock
        self._silence = Silence()
        self._handovers = Handovers(desired, backend)
        self._shut = shut  # what keeps the host shut before the first full state
        self.contest = Contest(clock)
        self._state = HostState("", 0, "", 0, ())  # the last one taken, without interfaces
        self._names: dict[str, str] = {}  # of interfaces by server, those included that are still to be removed
        self._seen = Observed({}, {})  # the last time the host was read, without devices and links
        self._collisions = LastCollisions()
        self._guarded = True  # whether the guards did what was last asked of them
        self._settled = False  # whether the last full apply succeeded: only then is a difference somebody else's doing

    # A full state

    def full(self, state: HostState) -> FullReport | None:
        """Take ``state`` and make the host so; ``None`` when the state is stale or from another run."""
        with self._lock:
            self._end_handovers()
            before = self._desired.interfaces()
            unfinished = set(self._desired.peers.changed())
            if not self._desired.take_full(state, self._clock()):
                return None
            self._state = dataclasses.replace(state, interfaces=())
            return self._make_so(before, unfinished, [])

    def repair(self, *, tunnels: bool, host: bool = False) -> FullReport | None:
        """Put back what others took away, without any message; ``None`` where nothing was amiss. Links, addresses and
        routes are looked at with ``tunnels``, and what the host has itself with ``host``. Before the first full state
        only what keeps the host shut is put back."""
        with self._lock:
            if not self._desired.ready:
                self._shut()
                return None
            try:
                found = self._subsystems.drift()
            except SubsystemError:
                found, self._guarded = [], False  # it is asked again below, and what it says is reported
            lost = tunnels and self._lost_links()
            lost = lost or (host and self._collisions.differ(self._desired.interfaces(), self._executor.own_networks))
            if not found and self._guarded and not lost:
                return None
            self._end_handovers()
            collided_before = self._collisions.found
            if found:
                # Before the tunnels with all their peers are read: meanwhile the host is open.
                self._take_off_ended()
                self._guard(self._whole(), Failures())
            report = self._make_so(self._desired.interfaces(), set(self._desired.peers.changed()), found)
            told = report.drift or not self._settled or self._collisions.found != collided_before
            return report if told else None

    def _lost_links(self) -> bool:
        """Mostly it was our own doing, with a client that left: that is not worth reading everybody's peers for."""
        try:
            return not self._executor.links_match(self._desired.interfaces())
        except LinkError:
            return True

    def _whole(self) -> HostState:
        """What is desired now, with all peers."""
        return dataclasses.replace(
            self._state, interfaces=self._desired.interfaces(), remotes=self._desired.remotes.all()
        )

    def _make_so(self, before: tuple[Interface, ...], unfinished: set[str], found: Sequence[str]) -> FullReport:
        """Make the host what is desired. ``before``, less what is ``unfinished``, is what the last apply left there;
        ``found`` are differences that were put right just now."""
        desired, failures = self._whole(), Failures()
        try:
            observed = self._executor.observe()
            seen = [*found, *(self._drift(before, unfinished, observed) if self._settled else [])]
            drift = [*dict.fromkeys(seen)]  # a follower puts right what it found only below
        except HOST_ERRORS as error:  # the host could not even be read
            log.error("state %d: %s", desired.version, error)
            self._settled = False
            unreadable = HostCondition.of(Code.HOST_UNREADABLE, str(error))
            return FullReport(desired.version, {}, [*found], [unreadable, *self._subsystems.conditions()], [], False)
        for device in observed.devices.values():
            self._silence.look(device, self._clock())
        if drift:
            self.contest.note()
        self._settled = False
        public_keys = self._executor.load_keys(desired.interfaces, failures)
        self._take_off_ended()
        self._guard(desired, failures)
        if failures.guard is not None and self._desired.cut_short():
            # Nothing keeps them from what they may no longer reach.
            desired = self._whole()
        released = self._executor.execute(plan(desired.interfaces, public_keys, observed), failures)
        self._seen = dataclasses.replace(observed, devices={}, links={})
        self._guarded = failures.guard is None
        self._settled = not failures.errors and self._guarded
        gone = self._finish(self._mark_applied(desired.interfaces, failures), released)
        self._collisions.found = link_collisions(desired.interfaces, observed.own)
        reached = without(desired.interfaces, self._collisions.found)
        remotes = self._desired.remotes.take_all()
        self._subsystems.follow(dataclasses.replace(desired, interfaces=reached, remotes=remotes))
        conditions = [*failures.conditions(), *collided(self._collisions.found)]
        conditions += [*self._subsystems.conditions(), *self.contest.conditions()]
        return FullReport(desired.version, public_keys, drift, conditions, gone, self._settled, observed.own)

    def _take_off_ended(self) -> None:
        """Who has lingered goes before the firewall forgets it, and would let it through as one that is open."""
        for server in self._desired.peers.changed():
            interface, over = self._desired.interface(server), self._desired.peers.lingered(server)
            if interface is not None and over:
                with contextlib.suppress(WireGuardError):  # somebody removed the interface
                    self._backend.set(interface.name, peers=over)

    def _guard(self, desired: HostState, failures: Failures) -> None:
        """Before any interface is touched. The host routes nothing before its firewall says what."""
        try:
            self._subsystems.guard(desired)
            self._executor.forward(desired.interfaces)
        except SubsystemError as error:
            failures.guard = HostCondition.of(error.code, str(error))
        except LinkError as error:
            failures.guard = HostCondition.of(Code.FIREWALL_FAILED, str(error))

    def _mark_applied(self, interfaces: Sequence[Interface], failures: Failures) -> set[str]:
        """Note what needs no further work; return the servers where something failed.

        Servers that are desired no more count as well: their peers are gone only when their interface is.
        """
        self._names |= {interface.server: interface.name for interface in interfaces}
        failed = {server for server, name in self._names.items() if name in failures.errors}
        desired = {interface.server for interface in interfaces}
        self._names = {server: name for server, name in self._names.items() if server in failed | desired}
        for server in self._desired.peers.changed():
            if server not in failed:
                self._desired.peers.mark_applied(server)
        return failed

    def _drift(self, before: tuple[Interface, ...], unfinished: set[str], observed: Observed) -> list[str]:
        """In words, how the host differs from what the last apply left there.

        By what the last apply knew of the world around: another way out, or a network that the host now has itself,
        is not what somebody did to us.
        """
        around = self._seen
        as_it_was = dataclasses.replace(
            observed, host_routes=around.host_routes, outer_mtu=around.outer_mtu, own=around.own
        )
        busy = {interface.name for interface in before if interface.server in unfinished}
        undone = plan(before, self._executor.public_keys(), as_it_was).without(busy)
        return [*self._subsystems.drift(), *describe(undone)]

    def preview(self, state: HostState) -> list[str] | None:
        """What ``full`` would do with ``state``, line by line, with nothing done and nothing remembered; ``None`` where
        it would ignore it. Raise one of ``HOST_ERRORS`` when the host cannot be read."""
        with self._lock:
            desired = self._desired.preview(state, self._clock())
            if desired is None:
                return None
            observed, keys = self._executor.observe(), self._executor.known_keys(desired.interfaces)
            collisions = link_collisions(desired.interfaces, observed.own)
            lines = [*map(str, collided(collisions)), *intend(plan(desired.interfaces, keys, observed))]
            reached = dataclasses.replace(desired, interfaces=without(desired.interfaces, collisions))
            return self._subsystems.preview(desired, lines, reached)

    # Single changes

    def changes(self, messages: Sequence[Change]) -> BatchReport:
        """Take a batch of single changes and tell WireGuard of them in one request per interface.

        The device is not read: a batch costs what it changes, however many peers there are. Where this raises anything,
        none of the additions is desired, so that each message can be tried alone.
        """
        with self._lock:
            added = [message.peer.connection for message in messages if isinstance(message, AddPeer)]
            new = [connection for connection in added if not self._desired.holds(connection)]
            try:
                now = self._clock()
                answers = [self._take(message, now) for message in messages]
                failed = self._push()
                self._push_remotes()
            except Exception:
                # Else the one that cannot be carried out would come with every later change, and fail these too.
                self._desired.retract(new)
                raise
            for index, message in enumerate(messages):
                if isinstance(message, AddPeer) and not answers[index]:
                    answers[index] = failed.get(message.server, "")
                    # A later message of the same batch may have ended it again.
                    made = message.peer.connection
                    if not answers[index] and not (self._desired.holds(made) or made in self._handovers):
                        answers[index] = "this connection has ended"
            return BatchReport(answers, self._finish(failed, set()) if self._desired.ready else [])  # kept until then

    def _take(self, message: Change, now: float) -> str:
        match message:
            case AddPeer():
                self._handovers.end(message.replaces, now)
                return "" if self._handovers.begin(message) else self._desired.add(message, now)
            case RemovePeers():
                self._handovers.end(message.connections, now)
                self._desired.remove(message.connections, lingers=message.lingers)
            case AddRemotes():
                self._desired.add_remotes(message.remotes)
            case RemoveRemotes():
                self._desired.remotes.remove(message.connections)
        return ""

    def _push_remotes(self) -> None:
        """Tell followers what is elsewhere now. None of it can fail, nor does anybody wait for it."""
        if not self._desired.ready:
            return
        moved = self._desired.remotes.take_changes()
        for server in {remote.server for remote in (*moved.gone, *moved.new)}:
            mine = moved.of(server)
            self._subsystems.change_remotes(server, mine.gone, mine.new)

    def _push(self) -> dict[str, str]:
        """Tell the host what changed; return the errors by server. What failed stays to be done."""
        failed: dict[str, str] = {}
        for server in self._desired.peers.changed():
            interface = self._desired.interface(server)
            if interface is None:
                continue
            try:
                self._push_to(interface, self._desired.peers.difference(server))
            except HOST_ERRORS as error:
                log.error("changing peers of %s: %s", interface.name, error)
                failed[server] = str(error)
            else:
                self._desired.peers.mark_applied(server)
        return failed

    def _push_to(self, interface: Interface, difference: Difference) -> None:
        """Guards come last: they do all or nothing, and all else may be repeated. Whom they do not shut in goes."""
        gone, new = difference.gone, difference.new
        self._desired.remotes.touch(network for peer in (*gone, *new) for network in peer.routed)
        self._backend.set(interface.name, peers=self._desired.peers.changes(interface.server))
        self._route(interface, {network for peer in (*gone, *new) for network in peer.networks})
        if not gone and not new:
            return
        try:
            self._subsystems.change(interface, gone, new)
        except Exception:
            if self._desired.cut_short(interface.server):
                self._backend.set(interface.name, peers=self._desired.peers.changes(interface.server))
            raise

    def _route(self, interface: Interface, networks: Collection[str]) -> None:
        """Route those of ``networks`` that lie behind a peer now, and the others no longer. One that cannot be routed
        keeps nobody from connecting: the next full state says why on the host's page."""
        if not networks:
            return
        behind = {network for network in networks if self._desired.peers.routes(interface.server, network)}
        free = free_of_conflict(interface, behind, self._seen.host_routes)
        errors = self._executor.route(interface.name, sorted(free), sorted({*networks} - free))
        if errors:
            log.warning("routes of %s: %s", interface.name, "; ".join(errors))
            self._settled = False  # what is missing there now is nobody else's doing

    # From one key to the next

    def _end_handovers(self) -> None:
        """All at once: whoever compares the whole host with what is desired finds nobody between two keys."""
        if self._handovers:
            self._handovers.end_all(self._clock())
            self._push()

    def hand_over(self) -> list[Gone]:
        """Let those whose first handshake came, or who have waited long enough, take over; what is really gone."""
        if not self._handovers:  # as nearly always: then nobody waits for the lock
            return []
        with self._lock:
            places = self._handovers.places()
        ready = self._handovers.ready(places)  # without the lock: it takes long where there are many peers
        with self._lock:
            self._handovers.end(ready, self._clock())
            return self._finish_push()

    # Time

    def drop_overdue(self) -> list[Gone]:
        """Remove whoever has lingered long enough; what is really gone, should something not have been told yet."""
        if not self._desired.peers.lingering:  # as nearly always: then nobody waits for the lock
            return []
        with self._lock:
            self._desired.end_overdue()
            return self._finish_push()

    def drop_silent(self) -> list[Gone]:
        """Remove every peer of which nothing was heard for its server's ping timeout, as far as WireGuard knows.

        For the time when nobody can tell this host who still pings.
        """
        with self._lock:
            for server in {held.server for held in self._desired.held()}:
                interface = self._desired.interface(server)
                if interface is not None:
                    self._desired.remove(self._silent(interface), "silent")
            return self._finish_push()

    def _finish_push(self) -> list[Gone]:
        if not self._desired.ready:
            return []
        gone = self._finish(self._push(), set())
        self._push_remotes()
        return gone

    def _silent(self, interface: Interface) -> list[str]:
        now = self._clock()
        try:
            self._silence.look(self._backend.get(interface.name), now)
        except WireGuardError as error:
            log.warning("reading %s: %s", interface.name, error)
            return []
        mine = [held for held in self._desired.held() if held.server == interface.server]
        return [held.peer.connection for held in mine if self._silence.is_silent(held, interface, now)]

    # Afterwards

    def peer_count(self) -> int:
        """How many peers are desired now. Needs no lock."""
        return self._desired.count()

    def _finish(self, unsettled: Collection[str], released: set[str]) -> list[Gone]:
        """Hand out what is really gone, and have the kernel forget connections of addresses that nobody has now."""
        gone = self._desired.take_gone(unsettled)
        released.update(ip for each in gone for ip in each.allowed_ips)
        free = {ip for ip in released if not self._desired.uses(ip)}
        if free:
            try:
                self._flush(free)
            except ConntrackError as error:
                log.warning("%s", error)
        return gone
