"""From what a host has to what it should have: the steps, and that nothing right is touched."""

from __future__ import annotations

import dataclasses

import pytest

from servers.hostnet.plan import (
    AddAddress,
    CreateInterface,
    DeleteInterface,
    RemoveAddress,
    Seen,
    SeenLink,
    SetDevice,
    SetLink,
    SetPeers,
    Step,
    describe,
    plan,
)
from servers.hostnet.state import Interface, Peer
from servers.hostnet.wireguard.base import Device, PeerChange, SeenPeer


def peer(name: str, *addresses: int) -> Peer:
    return Peer(name, 1, f"{name}-key", tuple(f"10.9.0.{address}/32" for address in addresses))


def seen_peer(name: str, *addresses: int) -> SeenPeer:
    allowed = frozenset(f"10.9.0.{address}/32" for address in addresses)
    return SeenPeer(f"{name}-key", allowed, "198.51.100.9:1000", 1_700_000_000, 5, 5)


def device(name: str, *peers: SeenPeer, port: int = 51820, key: str = "red-public") -> Device:
    return Device(name, key, port, {peer.public_key: peer for peer in peers})


RED = Interface("wgs1", "red", 51820, ("10.9.0.1/24", "fd01::1/64"), 0, False, 360, (), (peer("a", 2), peer("b", 3)))
BLUE = Interface("wgs2", "blue", 51821, ("10.10.0.1/24",), 1380, False, 360, (), ())
KEYS = {"red": "red-public", "blue": "blue-public"}
LINK = SeenLink(True, 1420, frozenset(RED.addresses))
RIGHT = Seen({"wgs1": device("wgs1", seen_peer("a", 2), seen_peer("b", 3))}, {"wgs1": LINK})


def with_peers(*peers: SeenPeer) -> Seen:
    return Seen({"wgs1": device("wgs1", *peers)}, {"wgs1": LINK})


def with_link(**changes: object) -> Seen:
    return Seen(RIGHT.devices, {"wgs1": dataclasses.replace(LINK, **changes)})  # type: ignore[arg-type]


def remove(name: str) -> PeerChange:
    return PeerChange(f"{name}-key", remove=True)


def put(name: str, *addresses: int) -> PeerChange:
    return PeerChange(f"{name}-key", peer(name, *addresses).allowed_ips)


CASES: dict[str, tuple[tuple[Interface, ...], Seen, list[Step]]] = {
    "nothing to do": ((RED,), RIGHT, []),
    "nothing wanted, nothing there": ((), Seen({}, {}), []),
    "a new interface is made, addressed and up before its peers": (
        (RED,),
        Seen({}, {}),
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
        Seen(
            {**RIGHT.devices, "wgs9": device("wgs9", port=51821)},
            {**RIGHT.links, "wgs9": SeenLink(True, 1420, frozenset({"10.10.0.1/24"}))},
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
        Seen({}, {"wgs5": SeenLink(False, 1500, frozenset())}),
        [DeleteInterface("wgs5")],
    ),
    "a device whose link is gone is made anew": (
        (BLUE,),
        Seen({"wgs2": device("wgs2", port=51821, key="blue-public")}, {}),
        [CreateInterface("wgs2"), AddAddress("wgs2", "10.10.0.1/24"), SetLink("wgs2", 1380)],
    ),
    "another port": (
        (RED,),
        Seen({"wgs1": device("wgs1", seen_peer("a", 2), seen_peer("b", 3), port=7)}, RIGHT.links),
        [SetDevice("wgs1", "red", 51820)],
    ),
    "another key": (
        (RED,),
        Seen({"wgs1": device("wgs1", seen_peer("a", 2), seen_peer("b", 3), key="")}, RIGHT.links),
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
    "an address changes: add before delete": (
        (RED,),
        with_link(addresses=frozenset({"10.9.0.1/24", "10.8.0.1/24"})),
        [AddAddress("wgs1", "fd01::1/64"), RemoveAddress("wgs1", "10.8.0.1/24")],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_plan(case: str) -> None:
    wanted, seen, steps = CASES[case]
    assert plan(wanted, KEYS, seen) == steps


def test_servers_that_trade_ports_let_go_of_them_first() -> None:
    red, blue = dataclasses.replace(RED, peers=()), BLUE
    seen = Seen(
        {"wgs1": device("wgs1", port=51821), "wgs2": device("wgs2", port=51820, key="blue-public")},
        {"wgs1": LINK, "wgs2": SeenLink(True, 1380, frozenset(BLUE.addresses))},
    )
    assert plan((red, blue), KEYS, seen) == [
        SetDevice("wgs1", "", 0),
        SetDevice("wgs2", "", 0),
        SetDevice("wgs1", "red", 51820),
        SetDevice("wgs2", "blue", 51821),
    ]


def test_ten_thousand_unchanged_peers_are_not_touched() -> None:
    numbers = range(10_000)
    wanted = tuple(Peer(f"p{n}", n, f"p{n}-key", (f"10.{n // 250}.{n % 250}.1/32",)) for n in numbers)
    there = [SeenPeer(p.public_key, frozenset(p.allowed_ips), "", 0, 0, 0) for p in wanted]
    new = Peer("new", 1, "new-key", ("10.99.0.1/32",))
    steps = plan((dataclasses.replace(RED, peers=(*wanted[:-1], new)),), KEYS, with_peers(*there))
    assert steps == [SetPeers("wgs1", (PeerChange("new-key", new.allowed_ips), remove("p9999")))]


def test_drift_in_words() -> None:
    seen = with_peers(seen_peer("a", 7), seen_peer("x", 9))
    words = [describe(step, seen) for step in plan((RED,), KEYS, seen)]
    assert words == ["wgs1: peers gone: 1, altered: 1, added: 1"]
    assert describe(DeleteInterface("wgs9"), seen) == "wgs9: an interface nobody asked for"
