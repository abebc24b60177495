"""A control side, a host and the messages between them, which come late, twice, in any order, or never."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from servers.hostnet.reconcile.desired import Desired
from servers.hostnet.state import AddPeer, HostState, Interface, Peer, RemovePeers

SERVERS = ("red", "blue")
ADDRESSES = tuple(f"10.9.0.{number}/32" for number in (2, 3))
TIME = 13.0  # seconds that an ended connection lingers


class ControlAndHost(RuleBasedStateMachine):
    """``database`` words are what is true; ``host`` is the thing under test."""

    wanted_class: type[Desired] = Desired

    def __init__(self) -> None:
        super().__init__()
        # The database.
        self.version = 0
        self.attached = set(SERVERS)
        self.open: dict[str, tuple[str, Peer]] = {}
        self.ended_at: dict[str, int] = {}
        self.lingering: dict[str, tuple[str, Peer, float]] = {}  # and until when
        self.clock = 0.0
        self.count = 0
        self.keys: list[str] = []
        # What the control side has in hand.
        self.known_boot = ""
        self.readings: list[tuple[int, str]] = []
        self.sent: list[HostState | AddPeer | RemovePeers] = []
        # The host, and what this run of it has seen.
        self.boots = 0
        self.restart()

    # Changes, each in one transaction with the version

    @rule(
        server=st.sampled_from(SERVERS), address=st.sampled_from(ADDRESSES), old_key=st.booleans(), told=st.booleans()
    )
    def connect(self, server: str, address: str, old_key: bool, told: bool) -> None:
        """Whoever has the address is replaced by it, as the same device is: the database gives no address twice."""
        if server not in self.attached:
            return
        self.version += 1
        replaces = tuple(c for c, (s, peer) in self.open.items() if s == server and address in peer.allowed_ips)
        self.count += 1
        connection = f"c{self.count}"
        # A client whose connect was not confirmed offers the same key again: as another connection, when that ended.
        taken = {peer.public_key for _, peer in self.open.values()}
        free = [key for key in self.keys if key not in taken]
        key = free[-1] if old_key and free else f"key{self.count}"
        self.keys.append(key)
        for each in replaces:
            self._end(each)
        peer = Peer(connection, self.version, key, (address,))
        self.open[connection] = (server, peer)
        # The end of the old one may also be told by a message of its own, which may be late or lost.
        if replaces and not told:
            self.sent.append(RemovePeers(self.version, replaces))
        self.sent.append(AddPeer(server, peer, replaces if told else ()))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 99), lingers=st.sampled_from((TIME, TIME, 0.0)))
    def disconnect(self, which: int, lingers: float) -> None:
        self.version += 1
        connection = list(self.open)[which % len(self.open)]
        if lingers:
            self.lingering[connection] = (*self.open[connection], self.clock + lingers)
        self._end(connection)
        self.sent.append(RemovePeers(self.version, (connection,), lingers))

    @rule(server=st.sampled_from(SERVERS))
    def attach_or_detach(self, server: str) -> None:
        self.version += 1
        self.attached ^= {server}
        for connection in [c for c, (s, _) in self.open.items() if s == server]:
            self._end(connection)

    def _end(self, connection: str) -> None:
        del self.open[connection]
        self.ended_at[connection] = self.version

    # Full states: the version is read first, the rows at any time after it

    @rule()
    def read_all_at_once(self) -> None:
        self.sent.append(self._state(self.version, self.known_boot))

    @rule()
    def read_version(self) -> None:
        self.readings.append((self.version, self.known_boot))

    @precondition(lambda self: self.readings)
    @rule(back=st.integers(0, 3))
    def read_rows(self, back: int) -> None:
        version, boot = self.readings[-1 - back % min(4, len(self.readings))]
        self.sent.append(self._state(version, boot))

    def _state(self, version: int, boot: str) -> HostState:
        interfaces = tuple(
            Interface(f"wgs{SERVERS.index(server)}", server, 1000 + SERVERS.index(server), (), 0, False, 360, (), peers)
            for server in sorted(self.attached)
            for peers in [(*(peer for s, peer in self.open.values() if s == server), *self._ended_of(server))]
        )
        return HostState("h", version, boot, 9790, interfaces)

    def _ended_of(self, server: str) -> list[Peer]:
        rows = [(peer, until - self.clock) for s, peer, until in self.lingering.values() if s == server]
        return [peer.lingering(left) for peer, left in rows if left > 0]

    # The host

    @rule(really=st.sampled_from((True, False, False, False)))
    def restart(self, really: bool = True) -> None:
        if not really:
            return
        self.boots += 1
        self.host = self.wanted_class(f"boot{self.boots}", steady=lambda: self.clock)
        self.there: set[str] = set()
        self.off: set[str] = set()
        self.lingers_since: dict[str, float] = {}
        self.before: set[str] = set()
        self.removed: set[str] = set()
        self.ended_before_run = set(self.ended_at)
        self.silent: set[str] = set()

    @rule()
    def hello(self) -> None:
        self.known_boot = self.host.boot
        self.readings.append((self.version, self.known_boot))

    @initialize(ready=st.booleans())
    def begin(self, ready: bool) -> None:
        if ready:
            self.come_up()

    @precondition(lambda self: not self.host.ready)
    @rule()
    def come_up(self) -> None:
        self.hello()
        self._deliver(self._state(self.version, self.known_boot))

    @precondition(lambda self: self.sent)
    @rule(back=st.integers(0, 15))
    def deliver(self, back: int) -> None:
        """One of the last messages, taken before or not; the others may come later, or never."""
        self._deliver(self.sent[-1 - back % min(16, len(self.sent))])

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 999))
    def deliver_an_old_one(self, which: int) -> None:
        self._deliver(self.sent[which % len(self.sent)])

    @rule(seconds=st.sampled_from((1.0, 6.0, TIME)))
    def wait(self, seconds: float) -> None:
        self.clock += seconds
        self.host.end_overdue()

    def _deliver(self, message: HostState | AddPeer | RemovePeers) -> None:
        if isinstance(message, HostState):
            if self.host.take_full(message, now=0.0):
                self.off |= self._overtaken(message)
        elif isinstance(message, AddPeer):
            self.host.add(message, now=0.0)
            self.removed |= set(message.replaces)
            self.off |= set(message.replaces)
        else:
            self.host.remove(message.connections, lingers=message.lingers)
            self.removed |= set(message.connections)
            self.off |= set(message.connections) - (self.there if message.lingers else set())

    def _overtaken(self, state: HostState) -> set[str]:
        """Who would linger by the state, but a newer peer here has its address or key: it stays gone, also when that
        peer ends before its time is over."""
        here = {i.server: i.peers for i in self.host.interfaces()}
        return {
            peer.connection
            for interface in state.interfaces
            for peer in interface.peers
            for other in here.get(interface.server, ())
            if peer.lingers and other.version > peer.version
            if other.public_key == peer.public_key or other.allowed_ips == peer.allowed_ips
        }

    @precondition(lambda self: self.before)
    @rule(which=st.integers(0, 99))
    def fall_silent(self, which: int) -> None:
        connection = sorted(self.before)[which % len(self.before)]
        self.host.remove([connection], "silent")
        self.silent.add(connection)
        self.off.add(connection)

    @rule()
    def report_silent(self) -> None:
        for connection in self.silent & self.open.keys():
            self.version += 1
            self._end(connection)

    # What must hold

    def _held(self) -> dict[str, Peer]:
        return {held.peer.connection: held.peer for held in self.host.held()}

    @invariant()
    def nothing_ended_is_there_and_nothing_open_is_lost(self) -> None:
        held = self._held().keys()
        lost = self.before - held
        assert lost <= self.ended_at.keys() | self.silent, "an open connection disappeared"
        self.removed |= lost
        self.before = set(held)
        assert not held & self.removed, "a connection came back that this run removed"
        assert not held & self.ended_before_run, "a connection came back that had ended before this run"
        if self.host.ready:
            old = {c for c, version in self.ended_at.items() if version <= self.host.version}
            assert not held & old, "a connection is there that had ended when the last full state was made"
        else:
            assert not held, "something was taken before the first full state"

    def _lingering(self) -> set[str]:
        return {peer.connection for i in self.host.interfaces() for peer in i.peers if peer.lingers}

    @invariant()
    def who_ended_lingers_once_and_not_for_longer_than_its_time(self) -> None:
        lingering = self._lingering()
        assert lingering <= self.lingering.keys(), "one lingers that is open, or was to go at once"
        for connection in lingering:
            since = self.lingers_since.setdefault(connection, self.clock)
            assert self.clock - since < TIME, "one lingers that should be gone"
        there = lingering | self._held().keys()
        assert not there & self.off, "one came back that was gone"
        self.off |= self.there - there
        self.there = there

    @invariant()
    def keys_and_addresses_belong_to_one_peer(self) -> None:
        for interface in self.host.interfaces():
            addresses = [ip for peer in interface.peers for ip in peer.allowed_ips]
            assert len(set(addresses)) == len(addresses)
            assert len({peer.public_key for peer in interface.peers}) == len(interface.peers)

    @rule()
    def mark_applied(self) -> None:
        """After hello and one full state of now, the host is exactly what the database says."""
        self.report_silent()
        self.hello()
        to_linger = self._to_linger()  # by who is gone now: the state itself may end some more of them
        self._deliver(self._state(self.version, self.known_boot))
        assert self._held() == {c: peer for c, (_, peer) in self.open.items()}
        assert {i.server for i in self.host.interfaces()} == self.attached
        assert self._lingering() == to_linger
        self.who_ended_lingers_once_and_not_for_longer_than_its_time()
        self.nothing_ended_is_there_and_nothing_open_is_lost()

    def _to_linger(self) -> set[str]:
        """Whoever is in its time, save those who are gone and those whose address or key a newer one has."""
        rows = [(server, peer) for server in self.attached for peer in self._ended_of(server)]
        there, lingering = list(self.open.values()), set()
        for server, peer in sorted(rows, key=lambda row: row[1].version, reverse=True):
            newer = [other for s, other in there if s == server and other.version > peer.version]
            taken = any(o.public_key == peer.public_key or o.allowed_ips == peer.allowed_ips for o in newer)
            if peer.connection not in self.off and not taken:
                there.append((server, peer))
                lingering.add(peer.connection)
        return lingering

    def teardown(self) -> None:
        self.mark_applied()
