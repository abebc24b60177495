"""What the table says of the mesh: who reaches this machine through it, and which clients reach whom."""

from __future__ import annotations

import dataclasses
from typing import Any

from servers.hostnet.firewall.table import ruleset
from servers.hostnet.state import Interface, Mesh, Route
from tests.servers.hostnet.firewall.test_ruleset import chain

RED = Interface("wgs1", "red", 51820, ("10.9.0.1/24", "fd01::1/64"), 0, False, 360, (Route("0.0.0.0/0", True),), ())
MESH = Mesh(("fd5c::1/128", "10.77.0.1/32"), 51800, 0, (), (9791, 9790), ())


def text(mesh: Mesh | None = MESH, **changes: Any) -> str:
    return ruleset((dataclasses.replace(RED, **changes),), 9790, mesh)


def test_other_machines_reach_what_is_served_to_them() -> None:
    assert "tcp dport { 9790, 9791 } accept" in chain(text(), "mesh")
    assert not [rule for rule in chain(text(dataclasses.replace(MESH, serves=())), "mesh") if "dport" in rule]
    assert not [rule for rule in chain(text(None), "mesh") if "dport" in rule]


def test_addresses_of_the_mesh_are_reached_by_no_other_way() -> None:
    rules = chain(text(), "input")
    mine = ["ip6 daddr fd5c::1 drop", "ip daddr 10.77.0.1 drop"]
    assert [rule for rule in rules if rule in mine] == mine
    # What came through the mesh, or from this machine itself, has gone elsewhere by then.
    assert rules.index('iifname "wgm*" goto mesh') < rules.index('iifname "lo" accept') < rules.index(mine[0])


def test_port_of_the_mesh_is_never_forwarded_to_a_client() -> None:
    assert "udp dport { 51800, 51820 } return" in chain(text(), "prerouting")
    assert "udp dport { 51820 } return" in chain(text(None), "prerouting")


def test_clients_reach_each_other_across_machines_as_on_one() -> None:
    to, of = (chain(text(inter_client=True), name) for name in ("to_mesh", "from_mesh"))
    assert 'iifname "wgs1" ip daddr { 10.9.0.0/24 } accept' in to
    assert 'iifname "wgs1" ip6 daddr { fd01::/64 } accept' in to
    assert 'oifname "wgs1" ip saddr { 10.9.0.0/24 } accept' in of
    for name in ("to_mesh", "from_mesh"):
        assert not [rule for rule in chain(text(inter_client=False), name) if "wgs1" in rule]


def test_networks_behind_clients_are_reached_in_any_case_and_sets_have_no_overlaps() -> None:
    rules = chain(text(behind=("10.60.3.0/24", "10.60.0.0/16", "fd60::/64")), "to_mesh")
    assert 'iifname "wgs1" ip daddr { 10.60.0.0/16 } accept' in rules
    assert 'iifname "wgs1" ip saddr { 10.60.0.0/16 } ip daddr { 10.60.0.0/16, 10.9.0.0/24 } accept' in rules
    assert 'iifname "wgs1" ip6 daddr { fd60::/64 } accept' in rules


def test_default_route_of_a_server_takes_nothing_into_the_mesh_in_the_hosts_name() -> None:
    whole = text()
    assert chain(whole, "postrouting")[1] == 'oifname "wgm*" accept'
    assert chain(whole, "forward").index('iifname "wgs*" oifname "wgm*" goto to_mesh') == 1
