"""From how the mesh's interface is to how it should be: nothing that is right is touched, however much there is."""

from __future__ import annotations

from dataclasses import replace

from servers.hostnet.mesh.plan import KEEPALIVE, Observed, Steps, plan
from servers.hostnet.observed import ObservedLink
from servers.hostnet.state import Mesh, MeshPeer
from servers.hostnet.wireguard.base import Device, ObservedPeer, PeerChange

A = MeshPeer("a", "key-a", ("198.51.100.2:51800",), ("fd00::2/128",))
B = MeshPeer("b", "key-b", ("198.51.100.3:51800",), ("fd00::3/128",))
MESH = Mesh(("fd00::1/128",), 51800, 0, (A, B))
MANY = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}/32" for n in range(10_000)]


def observed(behind: dict[str, list[str]]) -> Observed:
    peers = {key: ObservedPeer(key, frozenset(ips), "", 0, 0, 0) for key, ips in behind.items()}
    routes = frozenset(ip for ips in behind.values() for ip in ips)
    return Observed(
        Device("wgm0", "mine", 51800, peers), ObservedLink(True, 1420, frozenset(MESH.addresses), routes), True
    )


def steps(allowed: dict[str, list[str]], seen: Observed, mesh: Mesh = MESH) -> Steps:
    return plan(mesh, "mine", {peer.host: peer for peer in mesh.peers}, allowed, 1420, seen)


def test_what_is_right_needs_nothing() -> None:
    allowed = {"a": ["fd00::2/128", *MANY], "b": ["fd00::3/128"]}
    assert steps(allowed, observed({"key-a": allowed["a"], "key-b": allowed["b"]})) == Steps()


def test_from_nothing_all_is_made() -> None:
    made = steps({"a": ["fd00::2/128"], "b": ["fd00::3/128"]}, Observed(None, None, False))
    assert (made.create, made.device, made.mtu, made.ask) == (True, True, 1420, True)
    assert made.add_addresses == ["fd00::1/128"]
    assert made.peers == [
        PeerChange("key-a", ("fd00::2/128",), keepalive=KEEPALIVE),
        PeerChange("key-b", ("fd00::3/128",), keepalive=KEEPALIVE),
    ]
    assert made.add_routes == ["fd00::2/128", "fd00::3/128"]


def test_one_move_among_ten_thousand_is_one_network_put_elsewhere() -> None:
    before = {"key-a": ["fd00::2/128", *MANY], "key-b": ["fd00::3/128"]}
    made = steps({"a": ["fd00::2/128", *MANY[1:]], "b": ["fd00::3/128", MANY[0]]}, observed(before))
    assert made.peers == [PeerChange("key-b", (MANY[0],), add=True)]
    assert (made.add_routes, made.remove_routes) == ([], [])


def test_one_that_left_is_taken_off_without_the_others_being_said_again() -> None:
    before = {"key-a": ["fd00::2/128", *MANY], "key-b": ["fd00::3/128"]}
    made = steps({"a": ["fd00::2/128", *MANY[1:]], "b": ["fd00::3/128"]}, observed(before))
    nobody, gone = made.peers
    assert nobody.allowed_ips == (MANY[0],)
    assert nobody.public_key not in {"key-a", "key-b"}
    assert (gone.public_key, gone.remove) == (nobody.public_key, True)
    assert made.remove_routes == [MANY[0]]


def test_machine_that_left_goes_with_all_that_was_behind_it() -> None:
    seen = observed({"key-a": ["fd00::2/128", *MANY[:3]], "key-b": ["fd00::3/128"]})
    made = steps({"b": ["fd00::3/128"]}, seen, replace(MESH, peers=(B,)))
    assert made.peers == [PeerChange("key-a", remove=True)]
    assert made.remove_routes == sorted(["fd00::2/128", *MANY[:3]])


def test_address_that_changes_is_added_before_the_old_one_goes() -> None:
    seen = observed({"key-a": ["fd00::2/128"], "key-b": ["fd00::3/128"]})
    made = steps({"a": ["fd00::2/128"], "b": ["fd00::3/128"]}, seen, replace(MESH, addresses=("10.77.0.1/32",)))
    assert (made.add_addresses, made.remove_addresses) == (["10.77.0.1/32"], ["fd00::1/128"])


def test_every_difference_is_said_in_words() -> None:
    seen = replace(observed({"key-a": ["fd00::2/128"]}), asked=False)
    assert steps({"a": ["fd00::2/128"], "b": ["fd00::3/128"]}, seen).words == [
        "have the routing table of the mesh asked",
        "add machine b",
        "route 1 more networks",
    ]
