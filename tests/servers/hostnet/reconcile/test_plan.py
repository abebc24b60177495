"""Plans: from what a host has to what it should have, with nothing else touched."""

from __future__ import annotations

import dataclasses

import pytest

from servers.hostnet.observed import HostRoute, Observed, ObservedLink
from servers.hostnet.reconcile.describe import describe, intend
from servers.hostnet.reconcile.plan import (
    AddAddress,
    AddRoute,
    CreateInterface,
    DeleteInterface,
    Plan,
    RemoveAddress,
    RemoveRoute,
    SetDevice,
    SetLink,
    SetPeers,
    Step,
    mtu_of,
    plan,
)
from servers.hostnet.reconcile.route_conflicts import conflicts
from servers.hostnet.state import Interface, Peer
from servers.hostnet.wireguard.base import Device, ObservedPeer, PeerChange


def peer(name: str, *addresses: int) -> Peer:
    return Peer(name, 1, f"{name}-key", tuple(f"10.9.0.{address}/32" for address in addresses))


def seen_peer(name: str, *addresses: int) -> ObservedPeer:
    allowed = frozenset(f"10.9.0.{address}/32" for address in addresses)
    return ObservedPeer(f"{name}-key", allowed, "198.51.100.9:1000", 1_700_000_000, 5, 5)


def device(name: str, *peers: ObservedPeer, port: int = 51820, key: str = "red-public") -> Device:
    return Device(name, key, port, {peer.public_key: peer for peer in peers})


RED = Interface("wgs1", "red", 51820, ("10.9.0.1/24", "fd01::1/64"), 0, False, 360, (), (peer("a", 2), peer("b", 3)))
BLUE = Interface("wgs2", "blue", 51821, ("10.10.0.1/24",), 1380, False, 360, (), ())
KEYS = {"red": "red-public", "blue": "blue-public"}
LINK = ObservedLink(True, 1420, frozenset(RED.addresses))
RIGHT = Observed({"wgs1": device("wgs1", seen_peer("a", 2), seen_peer("b", 3))}, {"wgs1": LINK})


SITE = ("192.168.7.0/24", "fd77::/48")
BEHIND_A = dataclasses.replace(RED, peers=(dataclasses.replace(peer("a", 2), networks=SITE), peer("b", 3)))
BEHIND_B = dataclasses.replace(RED, peers=(peer("a", 2), dataclasses.replace(peer("b", 3), networks=SITE)))
A_WITH_SITE = ObservedPeer("a-key", frozenset({"10.9.0.2/32", *SITE}), "", 0, 0, 0)
ROUTED = dataclasses.replace(LINK, routes=frozenset(SITE))


def routed(*routes: str, host_routes: tuple[HostRoute, ...] = ()) -> Observed:
    """Peer a has its networks, and these of them are routed."""
    link = dataclasses.replace(LINK, routes=frozenset(routes))
    return Observed({"wgs1": device("wgs1", A_WITH_SITE, seen_peer("b", 3))}, {"wgs1": link}, host_routes)


def with_peers(*peers: ObservedPeer) -> Observed:
    return Observed({"wgs1": device("wgs1", *peers)}, {"wgs1": LINK})


def with_link(**changes: object) -> Observed:
    return Observed(RIGHT.devices, {"wgs1": dataclasses.replace(LINK, **changes)})  # type: ignore[arg-type]


def remove(name: str) -> PeerChange:
    return PeerChange(f"{name}-key", remove=True)


def put(name: str, *addresses: int) -> PeerChange:
    return PeerChange(f"{name}-key", peer(name, *addresses).allowed_ips)


CASES: dict[str, tuple[tuple[Interface, ...], Observed, list[Step]]] = {
    "nothing to do": ((RED,), RIGHT, []),
    "nothing wanted, nothing there": ((), Observed({}, {}), []),
    "a new interface is made, addressed and up before its peers": (
        (RED,),
        Observed({}, {}),
        [
            CreateInterface("wgs1"),
            SetDevice("wgs1", "red", 51820),
            AddAddress("wgs1", "10.9.0.1/24"),
            AddAddress("wgs1", "fd01::1/64"),
            SetLink("wgs1", 1420),
            SetPeers("wgs1", (put("a", 2), put("b", 3))),
        ],
    ),
    "a stranger goes first, since it may hold a port": (
        (RED, BLUE),
        Observed(
            {**RIGHT.devices, "wgs9": device("wgs9", port=51821)},
            {**RIGHT.links, "wgs9": ObservedLink(True, 1420, frozenset({"10.10.0.1/24"}))},
        ),
        [
            DeleteInterface("wgs9"),
            CreateInterface("wgs2"),
            SetDevice("wgs2", "blue", 51821),
            AddAddress("wgs2", "10.10.0.1/24"),
            SetLink("wgs2", 1380),
        ],
    ),
    "a link of our name that is no WireGuard interface": (
        (),
        Observed({}, {"wgs5": ObservedLink(False, 1500, frozenset())}),
        [DeleteInterface("wgs5")],
    ),
    "a device whose link is gone is made anew": (
        (BLUE,),
        Observed({"wgs2": device("wgs2", port=51821, key="blue-public")}, {}),
        [CreateInterface("wgs2"), AddAddress("wgs2", "10.10.0.1/24"), SetLink("wgs2", 1380)],
    ),
    "another port": (
        (RED,),
        Observed({"wgs1": device("wgs1", seen_peer("a", 2), seen_peer("b", 3), port=7)}, RIGHT.links),
        [SetDevice("wgs1", "red", 51820)],
    ),
    "another key": (
        (RED,),
        Observed({"wgs1": device("wgs1", seen_peer("a", 2), seen_peer("b", 3), key="")}, RIGHT.links),
        [SetDevice("wgs1", "red", 51820)],
    ),
    "a peer that is missing": ((RED,), with_peers(seen_peer("a", 2)), [SetPeers("wgs1", (put("b", 3),))]),
    "a stranger among the peers": (
        (RED,),
        with_peers(seen_peer("a", 2), seen_peer("b", 3), seen_peer("x", 9)),
        [SetPeers("wgs1", (remove("x"),))],
    ),
    "additions before removals": (
        (RED,),
        with_peers(seen_peer("x", 9), seen_peer("b", 3)),
        [SetPeers("wgs1", (put("a", 2), remove("x")))],
    ),
    "two peers trade addresses": (
        (RED,),
        with_peers(seen_peer("a", 3), seen_peer("b", 2)),
        [SetPeers("wgs1", (put("a", 2), put("b", 3)))],
    ),
    "an address moves to a new peer": (
        (dataclasses.replace(RED, peers=(peer("c", 2), peer("b", 3))),),
        RIGHT,
        [SetPeers("wgs1", (put("c", 2), remove("a")))],
    ),
    "a peer has one address too many": (
        (RED,),
        with_peers(seen_peer("a", 2, 7), seen_peer("b", 3)),
        [SetPeers("wgs1", (put("a", 2),))],
    ),
    "link down": ((RED,), with_link(up=False), [SetLink("wgs1", 1420)]),
    "another MTU": ((RED,), with_link(mtu=1500), [SetLink("wgs1", 1420)]),
    "another way out": ((RED,), dataclasses.replace(RIGHT, outer_mtu=1400), [SetLink("wgs1", 1320)]),
    "a server's own MTU does not follow the way out": (
        (dataclasses.replace(RED, mtu=1420),),
        dataclasses.replace(RIGHT, outer_mtu=1400),
        [],
    ),
    "networks behind a peer are routed once the peer has them": (
        (BEHIND_A,),
        RIGHT,
        [
            SetPeers("wgs1", (PeerChange("a-key", ("10.9.0.2/32", *SITE)),)),
            AddRoute("wgs1", SITE[0]),
            AddRoute("wgs1", SITE[1]),
        ],
    ),
    "networks that are routed are left alone": ((BEHIND_A,), routed(*SITE), []),
    "one route is missing": ((BEHIND_A,), routed(SITE[1]), [AddRoute("wgs1", SITE[0])]),
    "one route too many": ((BEHIND_A,), routed(*SITE, "10.77.0.0/16"), [RemoveRoute("wgs1", "10.77.0.0/16")]),
    "somebody else's route to the same interface serves": (
        (BEHIND_A,),
        routed(SITE[1], host_routes=(HostRoute(SITE[0], "wgs1", True),)),
        [],
    ),
    "networks pass to another peer: who wins them comes first, and their routes stay": (
        (BEHIND_B,),
        routed(*SITE),
        [SetPeers("wgs1", (PeerChange("b-key", ("10.9.0.3/32", *SITE)), put("a", 2)))],
    ),
    "networks go with their peer": (
        (dataclasses.replace(RED, peers=(peer("b", 3),)),),
        routed(*SITE),
        [SetPeers("wgs1", (remove("a"),)), RemoveRoute("wgs1", SITE[0]), RemoveRoute("wgs1", SITE[1])],
    ),
    "a network that the host has itself is not routed": (
        (BEHIND_A,),
        routed(SITE[1], host_routes=(HostRoute(SITE[0], "lan0", True),)),
        [],
    ),
    "nor is a part of a network that it is on": (
        (BEHIND_A,),
        routed(SITE[1], host_routes=(HostRoute("192.168.0.0/16", "lan0", True),)),
        [],
    ),
    "a part of what it reaches by a router is": (
        (BEHIND_A,),
        routed(
            SITE[1], host_routes=(HostRoute("192.168.0.0/16", "lan0", False), HostRoute("0.0.0.0/0", "lan0", False))
        ),
        [AddRoute("wgs1", SITE[0])],
    ),
    "and where the host gets such a network later, ours gives way": (
        (BEHIND_A,),
        routed(*SITE, host_routes=(HostRoute(SITE[1], "lan0", True),)),
        [RemoveRoute("wgs1", SITE[1])],
    ),
    "a network that passes to another server is let go of first": (
        (dataclasses.replace(RED, peers=()), dataclasses.replace(BLUE, peers=BEHIND_A.peers[:1])),
        Observed(
            {"wgs1": device("wgs1"), "wgs2": Device("wgs2", "blue-public", 51821, {"a-key": A_WITH_SITE})},
            {
                "wgs1": dataclasses.replace(LINK, routes=frozenset(SITE[:1])),
                "wgs2": ObservedLink(True, 1380, frozenset(BLUE.addresses), frozenset(SITE[1:])),
            },
        ),
        [RemoveRoute("wgs1", SITE[0]), AddRoute("wgs2", SITE[0])],
    ),
    "of two servers with the same network one gets it": (
        (BEHIND_A, dataclasses.replace(BLUE, peers=BEHIND_A.peers[:1])),
        Observed(
            {
                "wgs1": device("wgs1", A_WITH_SITE, seen_peer("b", 3)),
                "wgs2": Device("wgs2", "blue-public", 51821, {"a-key": A_WITH_SITE}),
            },
            {"wgs1": ROUTED, "wgs2": ObservedLink(True, 1380, frozenset(BLUE.addresses))},
        ),
        [],
    ),
    "an address changes: add before delete": (
        (RED,),
        with_link(addresses=frozenset({"10.9.0.1/24", "10.8.0.1/24"})),
        [AddAddress("wgs1", "fd01::1/64"), RemoveAddress("wgs1", "10.8.0.1/24")],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_plan(case: str) -> None:
    desired, observed, steps = CASES[case]
    assert [*plan(desired, KEYS, observed).steps] == steps


def test_servers_that_trade_ports_let_go_of_them_first() -> None:
    red, blue = dataclasses.replace(RED, peers=()), BLUE
    observed = Observed(
        {"wgs1": device("wgs1", port=51821), "wgs2": device("wgs2", port=51820, key="blue-public")},
        {"wgs1": LINK, "wgs2": ObservedLink(True, 1380, frozenset(BLUE.addresses))},
    )
    assert [*plan((red, blue), KEYS, observed).steps] == [
        SetDevice("wgs1", "", 0),
        SetDevice("wgs2", "", 0),
        SetDevice("wgs1", "red", 51820),
        SetDevice("wgs2", "blue", 51821),
    ]


def test_ten_thousand_unchanged_peers_are_not_touched() -> None:
    numbers = range(10_000)
    desired = tuple(Peer(f"p{n}", n, f"p{n}-key", (f"10.{n // 250}.{n % 250}.1/32",)) for n in numbers)
    there = [ObservedPeer(p.public_key, frozenset(p.allowed_ips), "", 0, 0, 0) for p in desired]
    new = Peer("new", 1, "new-key", ("10.99.0.1/32",))
    steps = plan((dataclasses.replace(RED, peers=(*desired[:-1], new)),), KEYS, with_peers(*there)).steps
    assert [*steps] == [SetPeers("wgs1", (PeerChange("new-key", new.allowed_ips), remove("p9999")))]


def test_drift_in_words() -> None:
    observed = with_peers(seen_peer("a", 7), seen_peer("x", 9))
    found = plan((RED,), KEYS, observed)
    assert describe(found) == ["wgs1: peers gone: 1, altered: 1, added: 1"]
    assert intend(found) == ["wgs1: peers to add: 1, to alter: 1, to remove: 1"]
    assert describe(Plan((DeleteInterface("wgs9"),), {}, observed)) == ["wgs9: an interface nobody asked for"]


def test_plan_holds_what_is_refused_and_can_leave_out_interfaces() -> None:
    blue = dataclasses.replace(BLUE, peers=BEHIND_A.peers[:1])
    found = plan((BEHIND_A, blue), KEYS, Observed({}, {}))
    assert found.refused == conflicts((BEHIND_A, blue), ())
    assert found.refused
    assert intend(found)[-len(found.refused) :] == [f"warning route_refused: {text}" for text in found.refused.values()]
    without = found.without({"wgs1"})
    assert {step.interface for step in found.steps} == {"wgs1", "wgs2"}
    assert {step.interface for step in without.steps} == {"wgs2"}
    assert without.refused == found.refused


@pytest.mark.parametrize(("outer", "mtu"), [(1500, 1420), (1400, 1320), (1492, 1412), (9000, 8920), (1300, 1280)])
def test_mtu_is_what_the_way_out_leaves(outer: int, mtu: int) -> None:
    observed = dataclasses.replace(RIGHT, outer_mtu=outer)
    assert mtu_of(RED, observed) == mtu
    assert mtu_of(BLUE, observed) == 1380


def test_networks_that_cannot_be_routed_in_words() -> None:
    blue = dataclasses.replace(BLUE, peers=BEHIND_A.peers[:1])
    host_routes = (HostRoute("192.168.0.0/16", "lan0", True), HostRoute("fd77::/48", "", False))
    assert list(conflicts((BEHIND_A,), host_routes).values()) == [
        "wgs1: 192.168.7.0/24 is not routed to its client: the host itself has 192.168.0.0/16 on lan0",
        "wgs1: fd77::/48 is not routed to its client: the host has a route for fd77::/48",
    ]
    assert list(conflicts((BEHIND_A, blue), ()).values()) == [
        "wgs2: 192.168.7.0/24 is not routed to its client: it is routed to wgs1",
        "wgs2: fd77::/48 is not routed to its client: it is routed to wgs1",
    ]
