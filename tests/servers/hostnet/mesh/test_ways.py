"""What linked servers' routes lead to: behind which machine, and for what comes from which interface."""

from __future__ import annotations

from servers.hostnet.mesh.membership import Membership
from servers.hostnet.mesh.plan import Observed, plan
from servers.hostnet.observed import ObservedLink
from servers.hostnet.state import Interface, Link, Mesh, MeshPeer, Remote, Route
from servers.hostnet.wireguard.base import Device, ObservedPeer

A = MeshPeer("a", "key-a", (), ("fd00::2/128",))
B = MeshPeer("b", "key-b", (), ("fd00::3/128",))
MESH = Mesh(("fd00::1/128",), 51800, 0, (A, B))
LAN, OTHER = "10.50.0.0/24", "10.51.0.0/24"


def interface(number: int, *links: Link) -> Interface:
    return Interface(f"wgs{number}", f"s{number}", 1, ("10.9.0.1/24",), 0, True, 360, (), (), links=links)


def link(via: str, *networks: str, netmap: str = "") -> Link:
    routes = tuple(Route(network, True, "", netmap) for network in networks)
    return Link("far", "wgs9", ("10.19.0.0/24",), routed=routes, via=via)


def members(*interfaces: Interface, remotes: tuple[Remote, ...] = ()) -> Membership:
    found = Membership()
    found.take_full(MESH, remotes, interfaces)
    return found


def test_networks_lie_behind_the_host_that_leads_there_and_go_with_the_link() -> None:
    found = members(interface(1, link("a", LAN), link("b", OTHER)))
    assert found.ways == {"wgs1": {LAN: "a", OTHER: "b"}}
    assert found.allowed_ips() == {"a": ["fd00::2/128", LAN], "b": ["fd00::3/128", OTHER]}
    found.take_full(MESH, (), (interface(1),))
    assert (found.ways, found.allowed_ips()) == ({}, {"a": ["fd00::2/128"], "b": ["fd00::3/128"]})


def test_nothing_leads_by_a_machine_that_is_not_there_and_what_is_mapped_by_what_clients_know() -> None:
    assert members(interface(1, link("c", LAN), link("", OTHER))).ways == {}
    assert members(interface(1, link("a", LAN, netmap="192.168.5.0/24"))).ways == {"wgs1": {LAN: "a"}}


def test_a_network_lies_behind_one_machine_and_who_cannot_have_it_gets_nowhere() -> None:
    found = members(interface(1, link("a", LAN)), interface(2, link("b", LAN, OTHER)), interface(3, link("a", LAN)))
    assert found.ways == {"wgs1": {LAN: "a"}, "wgs2": {OTHER: "b"}, "wgs3": {LAN: "a"}}
    client = Remote("c", 1, 1, "s2", "b", ("10.29.0.5/32",), (LAN,))
    assert members(interface(1, link("a", LAN)), remotes=(client,)).ways == {}
    assert found.allowed_ips()["a"].count(LAN) == 1


def test_they_are_in_no_table_that_everybody_asks() -> None:
    found = members(interface(1, link("a", LAN)))
    peers = {
        "key-a": ObservedPeer("key-a", frozenset({"fd00::2/128", LAN}), "", 0, 0, 0),
        "key-b": ObservedPeer("key-b", frozenset({"fd00::3/128"}), "", 0, 0, 0),
    }
    there = ObservedLink(True, 1420, frozenset(MESH.addresses), frozenset({"fd00::2/128", "fd00::3/128"}))
    device = Device("wgm0", "mine", 51800, peers)

    def steps(ways: dict[str, frozenset[str]]) -> list[str]:
        seen = Observed(device, there, True, ways)
        return plan(MESH, "mine", found.peers, found.allowed_ips(), 1420, seen, found.ways).words

    assert steps({"wgs1": frozenset({LAN})}) == []
    for other in ({}, {"wgs1": frozenset({OTHER})}, {"wgs1": frozenset({LAN}), "wgs2": frozenset({LAN})}):
        assert steps(other) == ["route the networks of linked servers"]
