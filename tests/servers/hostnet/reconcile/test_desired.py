"""What is left to be carried out of what is desired, and who has which network."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servers.hostnet.reconcile.desired import Desired
from servers.hostnet.state import AddPeer, HostState, Interface, Peer
from servers.hostnet.wireguard.base import PeerChange
from tests.servers.hostnet.fakes import FakeLinks, FakeWireGuard


def ready(*peers: Peer, version: int = 10, **fields: Any) -> Desired:
    desired = Desired("boot", **fields)
    interface = Interface("wgs1", "red", 1000, (), 0, False, 360, (), peers)
    assert desired.take_full(HostState("h", version, "boot", 9790, (interface,)), now=100.0)
    desired.peers.mark_applied("red")
    return desired


ALICE = Peer("alice", 5, "alice-key", ("10.9.0.2/32",))
BOB = Peer("bob", 11, "bob-key", ("10.9.0.3/32",))


def test_changes_are_kept_until_settled() -> None:
    desired = ready(ALICE)
    assert desired.peers.changed() == []
    assert desired.add(AddPeer("red", BOB), now=101.0) == ""
    desired.remove(["alice"])
    expected = [PeerChange("bob-key", ("10.9.0.3/32",)), PeerChange("alice-key", remove=True)]
    assert desired.peers.changes("red") == expected
    assert desired.peers.changes("red") == expected
    desired.peers.mark_applied("red")
    assert desired.peers.changed() == []


def test_one_key_that_changes_hands_is_set_and_not_removed() -> None:
    desired = ready(ALICE)
    again = Peer("alice2", 12, ALICE.public_key, ("10.9.0.9/32",))
    desired.remove(["alice"])
    assert desired.add(AddPeer("red", again), now=101.0) == ""
    assert desired.peers.changes("red") == [PeerChange("alice-key", ("10.9.0.9/32",))]
    # The late removal of the connection that had the key before does not take it away.
    desired.remove(["alice"])
    assert desired.peers.changes("red") == [PeerChange("alice-key", ("10.9.0.9/32",))]


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
    difference = desired.peers.difference("red")
    assert difference.gone == (behind("first", 5, SITE, OTHER),)
    assert {*difference.new} == {behind("second", 11, SITE), behind("first", 5, OTHER)}
    # The winner comes first: WireGuard takes the network off the other one in the same moment.
    assert [change.public_key for change in desired.peers.changes("red")] == ["second-key", "first-key"]
    desired.peers.mark_applied("red")
    desired.remove(["second"])
    assert networks(desired) == {"first": (SITE, OTHER)}
    expected = [
        PeerChange("first-key", ("10.9.0.5/32", SITE, OTHER)),
        PeerChange("second-key", remove=True),
    ]
    assert desired.peers.changes("red") == expected
    assert desired.uses(SITE)
    assert desired.peers.routes("red", SITE)
    desired.remove(["first"])
    assert not desired.uses(SITE)
    assert not desired.peers.routes("red", SITE)
    assert [gone.allowed_ips for gone in desired.take_gone()] == [
        ("10.9.0.11/32", SITE),
        ("10.9.0.5/32", SITE, OTHER),
    ]


def test_own_address_of_a_peer_is_never_anothers_network() -> None:
    desired = ready(behind("first", 5))
    assert desired.add(AddPeer("red", behind("thief", 11, "10.9.0.5/32")), now=0.0) == ""
    assert networks(desired) == {"first": (), "thief": ()}
    assert not desired.peers.routes("red", "10.9.0.5/32")
    desired.peers.mark_applied("red")
    desired.remove(["first"])
    assert networks(desired) == {"thief": ("10.9.0.5/32",)}
    assert desired.peers.routes("red", "10.9.0.5/32")
    assert [peer.connection for peer in desired.peers.difference("red").new] == ["thief"]
    desired.peers.mark_applied("red")
    assert (
        desired.add(AddPeer("red", dataclasses.replace(behind("first", 5), connection="again", version=12)), 0.0) == ""
    )
    assert networks(desired) == {"thief": (), "again": ()}
    assert {peer.connection for peer in desired.peers.difference("red").new} == {"again", "thief"}


def test_preview_is_what_a_full_state_would_make_and_leaves_no_trace() -> None:
    desired = ready(behind("first", 5, SITE), behind("late", 11))
    interface = Interface("wgs1", "red", 1000, (), 0, False, 360, (), (behind("second", 6, SITE),))
    state = HostState("h", 10, "boot", 9790, (interface,))
    before = desired.interfaces()
    preview = desired.preview(state, now=0.0)
    assert preview is not None
    assert {peer.connection for peer in preview.interfaces[0].peers} == {"late", "second"}
    assert desired.preview(dataclasses.replace(state, version=9), now=0.0) is None
    assert desired.interfaces() == before
    assert desired.peers.changed() == []
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
            wireguard.set("wgs1", peers=desired.peers.changes("red"))
            if step == "push":
                difference = desired.peers.difference("red")
                for peer in difference.gone:
                    assert told.pop(peer.connection) == peer
                told |= {peer.connection: peer for peer in difference.new}
                desired.peers.mark_applied("red")
    (interface,) = desired.interfaces()
    assert told == {peer.connection: peer for peer in interface.peers}
    there = {peer.public_key: peer.allowed_ips for peer in wireguard.devices["wgs1"].peers.values()}
    assert there == {peer.public_key: {*peer.routed} for peer in interface.peers}
