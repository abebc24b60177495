"""What the table says of the mesh: who reaches this machine through it, and which clients reach whom."""

from __future__ import annotations

import dataclasses
from typing import Any

from servers.hostnet.firewall.table import _forwards, ruleset
from servers.hostnet.state import Forward, Interface, Mesh, Remote, Route
from tests.servers.hostnet.fakes import state_of
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
    rules = chain(whole, "postrouting")
    assert rules[1] == 'oifname "wgm*" accept'
    # But for what arrived at a forwarded port and is handed on.
    relays = dataclasses.replace(MESH, relays=("240.0.0.7/32", "64:ff9b:1:e000::7/128"))
    assert chain(text(relays), "postrouting") == [
        rules[0],
        'iifname != "wgs*" oifname "wgm*" meta nfproto ipv4 ct status dnat snat ip to 240.0.0.7',
        'iifname != "wgs*" oifname "wgm*" meta nfproto ipv6 ct status dnat snat ip6 to 64:ff9b:1:e000::7',
        *rules[1:],
    ]
    forward = chain(whole, "forward")
    to_mesh = forward.index('iifname "wgs*" oifname "wgm*" goto to_mesh')
    assert not [rule for rule in forward[1:to_mesh] if "wgo" not in rule]  # links that OpenVPN carries come before it


def test_what_is_handed_on_reaches_forwarded_ports_alone() -> None:
    whole, families = text(), (("ip", "240.0.0.0/4", 4), ("ip6", "64:ff9b:1:e000::/64", 6))
    for ip, relays, version in families:
        target = f"{ip} daddr . meta l4proto . th dport @targets{version} accept"
        assert f"ct direction original {ip} saddr {relays} {target}" in chain(whole, "from_mesh")
        assert f"ct status dnat ct direction original {target}" in chain(whole, "outside_to_mesh")
    for name in ("from_mesh", "to_mesh", "outside_to_mesh", "mesh_outwards"):
        rules = chain(whole, name)
        assert rules[-1] == "drop"
        accepting = [rule for rule in rules if "accept" in rule and "state related" not in rule]
        assert len(accepting) == 2
        assert all("@targets" in rule for rule in accepting)


def test_clients_of_other_machines_have_their_ports_here_where_a_mesh_leads_there() -> None:
    remote = Remote("a", 1, 1, "red", "berlin", ("10.9.0.5/32",), forwards=(Forward("tcp", 80, 80, 8080),))
    state = dataclasses.replace(state_of(RED), remotes=(remote,))
    assert _forwards(state).elements() == set()
    assert ("forwards4", "tcp . 80 : 10.9.0.5 . 8080") in _forwards(dataclasses.replace(state, mesh=MESH)).elements()
