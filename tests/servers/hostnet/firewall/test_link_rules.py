"""What the table says between linked servers: exactly their networks, each way, and nothing for being established."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.hostnet.firewall.route_policy import BadRuleset, RoutePolicy
from servers.hostnet.firewall.table import FirewallError, ruleset
from servers.hostnet.state import Interface, Link, Mesh, Route
from tests.servers.hostnet.firewall.test_ruleset import chain

RED = Interface("wgs1", "red", 51820, ("10.9.0.1/24", "fd01::1/64"), 0, True, 360, (Route("0.0.0.0/0", True),), ())
BLUE = Interface("wgs2", "blue", 51821, ("10.10.0.1/24",), 0, True, 360, (), (), behind=("10.77.0.0/24",))
TO_BLUE = Link("blue", "wgs2", ("10.10.0.0/24",), ("10.77.0.0/24",))
TO_RED = Link("red", "wgs1", ("10.9.0.0/24", "fd01::/64"))
MESH = Mesh(("fd5c::1/128",), 51800, 0, (), (), ())
NAT, PLAIN = Route("10.50.0.0/24", True, "eth1"), Route("10.51.0.0/24", False)


def text(*interfaces: Interface) -> str:
    return ruleset(interfaces, 9790, MESH)


def linked(**fields: Any) -> str:
    """Both on one host."""
    to_blue, to_red = (dataclasses.replace(link, **fields) for link in (TO_BLUE, TO_RED))
    return text(dataclasses.replace(RED, links=(to_blue,)), dataclasses.replace(BLUE, links=(to_red,)))


def rules(whole: str, name: str) -> list[str]:
    return [rule for rule in chain(whole, name) if "10." in rule or "fd01" in rule]


def test_on_one_host() -> None:
    assert rules(linked(), "between") == [
        'iifname "wgs1" oifname "wgs2" ip saddr { 10.9.0.0/24 } ip daddr { 10.10.0.0/24, 10.77.0.0/24 } accept',
        'iifname "wgs2" oifname "wgs1" ip saddr { 10.10.0.0/24, 10.77.0.0/24 } ip daddr { 10.9.0.0/24 } accept',
    ]
    assert not [rule for rule in chain(linked(), "between") if " ct " in rule]
    assert rules(text(RED, BLUE), "between") == []


def test_clients_that_are_kept_apart_reach_networks_behind_clients() -> None:
    assert rules(linked(clients=False), "between") == [
        'iifname "wgs1" oifname "wgs2" ip saddr { 10.9.0.0/24 } ip daddr { 10.77.0.0/24 } accept',
        'iifname "wgs2" oifname "wgs1" ip saddr { 10.77.0.0/24 } ip daddr { 10.9.0.0/24 } accept',
    ]


def test_with_nat_whoever_comes_has_the_gateways_address() -> None:
    post = chain(linked(masquerade=True), "postrouting")
    assert 'oifname "wgs2" ip saddr { 10.9.0.0/24 } masquerade' in post
    assert 'oifname "wgs1" ip saddr { 10.10.0.0/24, 10.77.0.0/24 } masquerade' in post
    assert not [rule for rule in chain(linked(), "postrouting") if "10.9.0.0" in rule]


def test_on_another_host_by_the_mesh() -> None:
    here = dataclasses.replace(RED, links=(dataclasses.replace(TO_BLUE, routed=(NAT, PLAIN), via="far"),))
    whole = text(here)
    own = 'iifname "wgs1" ip daddr { 10.9.0.0/24 } accept', 'oifname "wgs1" ip saddr { 10.9.0.0/24 } accept'
    assert [rule for rule in rules(whole, "to_mesh") if rule not in own and "fd01" not in rule] == [
        'iifname "wgs1" ip saddr { 10.9.0.0/24 } ip daddr { 10.10.0.0/24, 10.77.0.0/24 } accept',
        'iifname "wgs1" ip daddr { 10.50.0.0/24, 10.51.0.0/24 } accept',
    ]
    assert [rule for rule in rules(whole, "from_mesh") if rule not in own and "fd01" not in rule] == [
        'oifname "wgs1" ip daddr { 10.9.0.0/24 } ip saddr { 10.10.0.0/24, 10.77.0.0/24 } accept',
        'oifname "wgs1" ip saddr { 10.51.0.0/24 } accept',
        'oifname "wgs1" ip saddr { 10.50.0.0/24, 10.51.0.0/24 } ct direction reply ct state established,related accept',
    ]
    assert rules(whole, "mesh_outwards") == rules(whole, "outside_to_mesh") == []


ANSWERS = "ct direction reply ct state established,related accept"


def test_routes_are_offered_to_the_other_ones_clients_alone() -> None:
    there = dataclasses.replace(BLUE, routes=(NAT, PLAIN), links=(dataclasses.replace(TO_RED, offered=(NAT, PLAIN)),))
    whole = text(there)
    assert rules(whole, "mesh_outwards") == ["ip saddr { 10.9.0.0/24 } ip daddr { 10.50.0.0/24, 10.51.0.0/24 } accept"]
    assert rules(whole, "outside_to_mesh") == [
        "ip daddr { 10.9.0.0/24 } ip saddr { 10.51.0.0/24 } accept",
        "ip daddr { 10.9.0.0/24 } ip saddr { 10.50.0.0/24, 10.51.0.0/24 }"
        " ct direction reply ct state established,related accept",
    ]
    out = 'iifname "wgm*" oifname "eth1" ip saddr { 10.9.0.0/24 } ip daddr { 10.50.0.0/24 } masquerade'
    assert out in chain(whole, "postrouting")
    for name in ("mesh_outwards", "outside_to_mesh"):
        assert chain(whole, name)[-1] == "drop"


@pytest.mark.parametrize("nat", [True, False])
def test_mapped_routes_are_reached_by_their_other_addresses_alone(nat: bool) -> None:
    mapped = Route("10.60.0.0/24", nat, "", "192.168.5.0/24")
    there = dataclasses.replace(BLUE, routes=(mapped,), links=(dataclasses.replace(TO_RED, offered=(mapped,)),))
    whole = text(there)
    red, real = "ip saddr { 10.9.0.0/24 }", "{ 192.168.5.0/24 }"
    to_real = f'iifname "wgm*" {red} dnat ip prefix to ip daddr map {{ 10.60.0.0/24 : 192.168.5.0/24 }}'
    assert to_real == chain(whole, "prerouting")[1]  # before what comes from the mesh is let be
    opened = [f"{red} ip daddr {real} {ANSWERS}"]
    assert rules(whole, "mesh_outwards") == [
        f"{red} ct original ip daddr {{ 10.60.0.0/24 }} ip daddr {real} accept",
        *([] if nat else opened),
    ]
    assert rules(whole, "outside_to_mesh") == [
        f"ip daddr {{ 10.9.0.0/24 }} ct original ip daddr {{ 10.60.0.0/24 }} ip saddr {real} {ANSWERS}",
        *([] if nat else [f"ip daddr {{ 10.9.0.0/24 }} ip saddr {real} accept"]),
    ]
    out = 'iifname "wgm*" oifname != "wgs*" ip saddr { 10.9.0.0/24 } ct original ip daddr { 10.60.0.0/24 } masquerade'
    back = 'oifname "wgm*" ip daddr { 10.9.0.0/24 } snat ip prefix to ip saddr map { 192.168.5.0/24 : 10.60.0.0/24 }'
    post = chain(whole, "postrouting")
    assert (out in post, back in post) == (nat, not nat)
    # On the host of the one who asks it is a network as any other.
    here = dataclasses.replace(RED, links=(dataclasses.replace(TO_BLUE, routed=(mapped,), via="far"),))
    assert 'iifname "wgs1" ip daddr { 10.60.0.0/24 } accept' in rules(text(here), "to_mesh")
    assert "192.168.5." not in text(here)


def test_no_wider_route_takes_what_lies_behind_a_link_out_of_the_host() -> None:
    link = dataclasses.replace(TO_BLUE, routed=(PLAIN,))
    policy = RoutePolicy.of(dataclasses.replace(RED, links=(link,)), 4)
    for network in ("10.10.0.0/24", "10.77.0.0/24", "10.51.0.0/24"):
        parsed = ipaddress.ip_network(network)
        for first, last in policy.routes:
            assert not first <= int(parsed[0]) <= last
    # Where this host carries the other, its routes are this one's as well.
    routes = (*RED.routes, PLAIN)
    policy = RoutePolicy.of(dataclasses.replace(RED, routes=routes, links=(TO_BLUE,)), 4)
    assert any(first <= int(ipaddress.ip_address("10.51.0.7")) <= last for first, last in policy.plain)


@pytest.mark.parametrize(
    "link",
    [
        dataclasses.replace(TO_BLUE, interface='x" accept'),
        dataclasses.replace(TO_BLUE, offered=(Route("10.50.0.0/24", True, 'e" accept'),)),
    ],
)
def test_no_name_gets_out_of_its_rule(link: Link) -> None:
    with pytest.raises(FirewallError) as error:
        text(dataclasses.replace(RED, links=(link,)))
    assert isinstance(error.value.__cause__, BadRuleset)


PAIRS = st.sets(st.tuples(st.integers(1, 5), st.integers(1, 5)).filter(lambda pair: pair[0] < pair[1]))


@given(PAIRS)
def test_whatever_is_linked_only_linked_pairs_are_let_through(pairs: set[tuple[int, int]]) -> None:
    """Loops too: a link joins its two servers and no others."""
    either = pairs | {(second, first) for first, second in pairs}
    interfaces = [
        Interface(
            f"wgs{n}", f"s{n}", 52000 + n, (f"10.{n}.0.1/24",), 0, True, 360, (Route("0.0.0.0/0", True),), (),
            links=tuple(Link(f"s{m}", f"wgs{m}", (f"10.{m}.0.0/24",)) for k, m in sorted(either) if k == n),
        )
        for n in range(1, 6)
    ]  # fmt: skip
    let = re.compile(
        r'iifname "wgs(\d)" oifname "wgs(\d)" ip saddr \{ 10\.(\d)\.0\.0/24 \} ip daddr \{ 10\.(\d)\.0\.0/24 \} accept'
    )
    found = [match for rule in rules(text(*interfaces), "between") if (match := let.fullmatch(rule))]
    assert len(found) == len(rules(text(*interfaces), "between"))
    assert {(int(match[1]), int(match[2])) for match in found} == either
    assert all((match[1], match[2]) == (match[3], match[4]) for match in found)
