"""An old message never wins.

A control side makes a history of changes and sends messages about it; a host takes them late, twice, in any order
or never, and is restarted in between. Whatever happens, it must not bring back what has ended nor lose what has not.
Then the same is shown to fail for hosts that break one rule each.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from servers.hostnet.reconcile.desired import Desired
from servers.hostnet.state import AddPeer, HostState, Interface, Peer, RemovePeers
from servers.hostnet.wireguard.base import PeerChange
from tests.servers.hostnet.fakes import FakeLinks, FakeWireGuard

SERVERS = ("red", "blue")
ADDRESSES = tuple(f"10.9.0.{number}/32" for number in (2, 3))


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
    @rule(which=st.integers(0, 99))
    def disconnect(self, which: int) -> None:
        self.version += 1
        connection = list(self.open)[which % len(self.open)]
        self._end(connection)
        self.sent.append(RemovePeers(self.version, (connection,)))

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
            for peers in [tuple(peer for s, peer in self.open.values() if s == server)]
        )
        return HostState("h", version, boot, 9790, interfaces)

    # The host

    @rule(really=st.sampled_from((True, False, False, False)))
    def restart(self, really: bool = True) -> None:
        if not really:
            return
        self.boots += 1
        self.host = self.wanted_class(f"boot{self.boots}")
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

    def _deliver(self, message: HostState | AddPeer | RemovePeers) -> None:
        if isinstance(message, HostState):
            self.host.take_full(message, now=0.0)
        elif isinstance(message, AddPeer):
            self.host.add(message, now=0.0)
            self.removed |= set(message.replaces)
        else:
            self.host.remove(message.connections)
            self.removed |= set(message.connections)

    @precondition(lambda self: self.before)
    @rule(which=st.integers(0, 99))
    def fall_silent(self, which: int) -> None:
        connection = sorted(self.before)[which % len(self.before)]
        self.host.remove([connection], "silent")
        self.silent.add(connection)

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
        self._deliver(self._state(self.version, self.known_boot))
        assert self._held() == {c: peer for c, (_, peer) in self.open.items()}
        assert {i.server for i in self.host.interfaces()} == self.attached
        self.nothing_ended_is_there_and_nothing_open_is_lost()

    def teardown(self) -> None:
        self.mark_applied()


def check(wanted_class: type[Desired], examples: int) -> None:
    class Machine(ControlAndHost):
        pass

    Machine.wanted_class = wanted_class
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            database=None,
            derandomize=wanted_class is not Desired,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate] if wanted_class is not Desired else list(Phase),
        ),
    )


def test_an_old_message_never_wins() -> None:
    check(Desired, 300)


class Forgetful(Desired):
    """Does not remember what ended."""

    def _remember_ended(self, connection: str) -> None:
        pass


class TakesOlderStates(Desired):
    def take_full(self, state: HostState, now: float) -> bool:
        self.ready = False
        return super().take_full(state, now)


class TakesStatesOfOtherRuns(Desired):
    def take_full(self, state: HostState, now: float) -> bool:
        return super().take_full(dataclasses.replace(state, boot=self.boot), now)


class DropsNewerPeers(Desired):
    """Believes a full state about everything, not only up to its version."""

    def take_full(self, state: HostState, now: float) -> bool:
        taken = super().take_full(state, now)
        if taken:
            listed = {peer.connection for interface in state.interfaces for peer in interface.peers}
            self.remove([held.peer.connection for held in self.held() if held.peer.connection not in listed])
        return taken


class TakesStaleAdditions(Desired):
    def add(self, message: AddPeer, now: float) -> str:
        peer = message.peer
        if self.ready and peer.version <= self.version:
            peer = dataclasses.replace(peer, version=self.version + 1)
        return super().add(dataclasses.replace(message, peer=peer), now)


class AddsBeforeTheFirstState(Desired):
    def add(self, message: AddPeer, now: float) -> str:
        if not self.ready and message.server in SERVERS:
            self._hold(message.server, message.peer, now)
        return super().add(message, now)


BROKEN = [
    Forgetful,
    TakesOlderStates,
    TakesStatesOfOtherRuns,
    DropsNewerPeers,
    TakesStaleAdditions,
    AddsBeforeTheFirstState,
]


@pytest.mark.parametrize("wanted_class", BROKEN)
def test_that_test_sees_each_rule_broken(wanted_class: type[Desired]) -> None:
    with pytest.raises(AssertionError):
        check(wanted_class, 3000)


# What is left to be carried out


def ready(*peers: Peer, version: int = 10, **fields: Any) -> Desired:
    desired = Desired("boot", **fields)
    interface = Interface("wgs1", "red", 1000, (), 0, False, 360, (), peers)
    assert desired.take_full(HostState("h", version, "boot", 9790, (interface,)), now=100.0)
    desired.mark_applied("red")
    return desired


ALICE = Peer("alice", 5, "alice-key", ("10.9.0.2/32",))
BOB = Peer("bob", 11, "bob-key", ("10.9.0.3/32",))


def test_changes_are_kept_until_settled() -> None:
    desired = ready(ALICE)
    assert desired.changed() == []
    assert desired.add(AddPeer("red", BOB), now=101.0) == ""
    desired.remove(["alice"])
    expected = [PeerChange("bob-key", ("10.9.0.3/32",)), PeerChange("alice-key", remove=True)]
    assert desired.changes("red") == expected
    assert desired.changes("red") == expected
    desired.mark_applied("red")
    assert desired.changed() == []


def test_one_key_that_changes_hands_is_set_and_not_removed() -> None:
    desired = ready(ALICE)
    again = Peer("alice2", 12, ALICE.public_key, ("10.9.0.9/32",))
    desired.remove(["alice"])
    assert desired.add(AddPeer("red", again), now=101.0) == ""
    assert desired.changes("red") == [PeerChange("alice-key", ("10.9.0.9/32",))]
    # The late removal of the connection that had the key before does not take it away.
    desired.remove(["alice"])
    assert desired.changes("red") == [PeerChange("alice-key", ("10.9.0.9/32",))]


def test_ends_are_handed_out_once_and_not_before_wireguard_took_them() -> None:
    desired = ready(ALICE)
    desired.remove(["alice", "stranger"])
    assert [gone.connection for gone in desired.take_gone(unsettled={"red"})] == ["stranger"]
    assert [(gone.connection, gone.allowed_ips) for gone in desired.take_gone()] == [("alice", ALICE.allowed_ips)]
    assert desired.take_gone() == []


def test_removals_count_before_the_first_full_state() -> None:
    desired = Desired("boot")
    desired.remove(["alice"])
    interface = Interface("wgs1", "red", 1000, (), 0, False, 360, (), (ALICE,))
    desired.take_full(HostState("h", 10, "boot", 9790, (interface,)), now=0.0)
    assert not desired.holds("alice")


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        (AddPeer("red", BOB), ""),
        (AddPeer("red", ALICE), ""),
        (AddPeer("green", BOB), "no such server on this host"),
        (AddPeer("red", Peer("late", 10, "k", ("10.9.0.7/32",))), "older than the state this host has"),
        (AddPeer("red", Peer("gone", 99, "k", ("10.9.0.7/32",))), "this connection has ended"),
    ],
)
def test_answers(message: AddPeer, answer: str) -> None:
    desired = ready(ALICE)
    desired.remove(["gone"])
    assert desired.add(message, now=0.0) == answer
    assert desired.holds(message.peer.connection) is (answer == "")


def test_older_of_two_with_one_address_is_out() -> None:
    desired = ready(ALICE)
    new = Peer("new", 12, "new-key", ALICE.allowed_ips)
    old = Peer("old", 11, "old-key", ALICE.allowed_ips)
    assert desired.add(AddPeer("red", new), now=0.0) == ""
    assert desired.add(AddPeer("red", old), now=0.0) == "a newer connection has its address or key"
    assert [held.peer.connection for held in desired.held()] == ["new"]
    assert desired.ended("alice")
    assert desired.ended("old")


def test_older_full_state_does_not_take_an_address_from_a_newer_peer() -> None:
    """It was read before the address changed hands, and nobody told us of the end of who had it."""
    desired = ready()
    new = Peer("new", 12, "new-key", ALICE.allowed_ips)
    assert desired.add(AddPeer("red", new), now=0.0) == ""
    interface = Interface("wgs1", "red", 1000, (), 0, False, 360, (), (ALICE,))
    assert desired.take_full(HostState("h", 11, "boot", 9790, (interface,)), now=0.0)
    assert [held.peer.connection for held in desired.held()] == ["new"]


def test_memory_of_ended_connections_is_bounded() -> None:
    desired = ready(remember=3)
    desired.remove(["a", "b", "c", "d"])
    assert [desired.ended(connection) for connection in "abcd"] == [False, True, True, True]


# Networks behind clients

SITE, OTHER = "192.168.7.0/24", "192.168.8.0/24"


def behind(name: str, version: int, *networks: str) -> Peer:
    return Peer(name, version, f"{name}-key", (f"10.9.0.{version}/32",), networks=networks)


def networks(desired: Desired) -> dict[str, tuple[str, ...]]:
    return {peer.connection: peer.networks for interface in desired.interfaces() for peer in interface.peers}


def test_network_is_the_newest_ones_and_nobody_ends_because_of_it() -> None:
    desired = ready(behind("first", 5, SITE, OTHER))
    assert desired.add(AddPeer("red", behind("second", 11, SITE)), now=0.0) == ""
    assert networks(desired) == {"first": (OTHER,), "second": (SITE,)}
    difference = desired.difference("red")
    assert difference.gone == (behind("first", 5, SITE, OTHER),)
    assert {*difference.new} == {behind("second", 11, SITE), behind("first", 5, OTHER)}
    # The winner comes first: WireGuard takes the network off the other one in the same moment.
    assert [change.public_key for change in desired.changes("red")] == ["second-key", "first-key"]
    desired.mark_applied("red")
    desired.remove(["second"])
    assert networks(desired) == {"first": (SITE, OTHER)}
    expected = [
        PeerChange("first-key", ("10.9.0.5/32", SITE, OTHER)),
        PeerChange("second-key", remove=True),
    ]
    assert desired.changes("red") == expected
    assert desired.uses(SITE)
    assert desired.routes("red", SITE)
    desired.remove(["first"])
    assert not desired.uses(SITE)
    assert not desired.routes("red", SITE)
    assert [gone.allowed_ips for gone in desired.take_gone()] == [
        ("10.9.0.11/32", SITE),
        ("10.9.0.5/32", SITE, OTHER),
    ]


def test_own_address_of_a_peer_is_never_anothers_network() -> None:
    desired = ready(behind("first", 5))
    assert desired.add(AddPeer("red", behind("thief", 11, "10.9.0.5/32")), now=0.0) == ""
    assert networks(desired) == {"first": (), "thief": ()}
    assert not desired.routes("red", "10.9.0.5/32")
    desired.mark_applied("red")
    desired.remove(["first"])
    assert networks(desired) == {"thief": ("10.9.0.5/32",)}
    assert desired.routes("red", "10.9.0.5/32")
    assert [peer.connection for peer in desired.difference("red").new] == ["thief"]
    desired.mark_applied("red")
    assert (
        desired.add(AddPeer("red", dataclasses.replace(behind("first", 5), connection="again", version=12)), 0.0) == ""
    )
    assert networks(desired) == {"thief": (), "again": ()}
    assert {peer.connection for peer in desired.difference("red").new} == {"again", "thief"}


def test_preview_is_what_a_full_state_would_make_and_leaves_no_trace() -> None:
    desired = ready(behind("first", 5, SITE), behind("late", 11))
    interface = Interface("wgs1", "red", 1000, (), 0, False, 360, (), (behind("second", 6, SITE),))
    state = HostState("h", 10, "boot", 9790, (interface,))
    before = desired.interfaces()
    preview = desired.preview(state, now=0.0)
    assert preview is not None
    assert {peer.connection for peer in preview[0].peers} == {"late", "second"}
    assert desired.preview(dataclasses.replace(state, version=9), now=0.0) is None
    assert desired.interfaces() == before
    assert desired.changed() == []
    assert desired.take_gone() == []
    assert not desired.ended("first")
    assert networks(desired)["first"] == (SITE,)


peers = st.builds(
    lambda number, mine: (f"c{number}", mine),
    st.integers(2, 4),
    st.sampled_from(((), (SITE,), ("10.9.0.3/32",), (SITE, OTHER), (SITE, "10.9.0.3/32"))),
)
steps = st.lists(
    st.tuples(st.just("add"), peers)
    | st.tuples(st.just("remove"), peers)
    | st.tuples(st.just("full"), st.lists(peers, unique_by=lambda each: each[0], max_size=4))
    | st.tuples(st.sampled_from(("push", "push", "push that fails")), st.none()),
    max_size=15,
)


@settings(max_examples=300, deadline=None)
@given(steps)
def test_what_is_handed_out_makes_wireguard_what_is_wanted(steps: list[tuple[str, Any]]) -> None:
    """Whatever comes in between, also pushes of which WireGuard took all and something else then failed."""
    wireguard, told = FakeWireGuard(FakeLinks()), dict[str, Peer]()
    wireguard.create("wgs1")
    desired = Desired("boot")
    version = 1
    for step, what in [("full", []), *steps, ("push", None)]:
        version += 1
        if step == "add":
            connection, mine = what
            desired.add(
                AddPeer("red", Peer(connection, version, connection, (f"10.9.0.{connection[1:]}/32",), mine)), 0
            )
        elif step == "remove":
            desired.remove([what[0]])
        elif step == "full":
            some = tuple(Peer(c, version, c, (f"10.9.0.{c[1:]}/32",), mine) for c, mine in what)
            interface = Interface("wgs1", "red", 1000, (), 0, False, 360, (), some)
            desired.take_full(HostState("h", version, "boot", 9790, (interface,)), 0)
        else:
            wireguard.set("wgs1", peers=desired.changes("red"))
            if step == "push":
                difference = desired.difference("red")
                for peer in difference.gone:
                    assert told.pop(peer.connection) == peer
                told |= {peer.connection: peer for peer in difference.new}
                desired.mark_applied("red")
    (interface,) = desired.interfaces()
    assert told == {peer.connection: peer for peer in interface.peers}
    there = {peer.public_key: peer.allowed_ips for peer in wireguard.devices["wgs1"].peers.values()}
    assert there == {peer.public_key: {*peer.routed} for peer in interface.peers}
