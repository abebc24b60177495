"""The text of our nftables table. What it does to packets is in tests/host."""

from __future__ import annotations

import dataclasses
import ipaddress
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.hostnet.firewall import FirewallError, route_spans, ruleset
from servers.hostnet.state import Interface, Route

RED = Interface("wgs1", "red", 51820, ("10.9.0.1/24",), 0, False, 360, (Route("10.0.0.0/8", False),), ())


def number(address: str) -> int:
    return int(ipaddress.ip_address(address))


def test_more_specific_route_decides_about_nat() -> None:
    routes = (Route("0.0.0.0/0", True), Route("10.0.0.0/8", False), Route("10.20.0.0/16", True), Route("::/0", True))
    assert route_spans(routes, 4) == [
        (0, number("9.255.255.255"), True),
        (number("10.0.0.0"), number("10.19.255.255"), False),
        (number("10.20.0.0"), number("10.20.255.255"), True),
        (number("10.21.0.0"), number("10.255.255.255"), False),
        (number("11.0.0.0"), number("255.255.255.255"), True),
    ]
    assert route_spans(routes, 6) == [(0, (1 << 128) - 1, True)]


def test_neighbours_alike_are_joined() -> None:
    halves = (Route("10.0.0.0/9", True), Route("10.128.0.0/9", True))
    assert route_spans(halves, 4) == [(number("10.0.0.0"), number("10.255.255.255"), True)]


# Few addresses, so that networks overlap: 10.0.0.0 to 10.0.0.255.
networks = st.builds(
    lambda address, length: ipaddress.ip_network((f"10.0.0.{address}", length), strict=False),
    st.integers(0, 255),
    st.integers(24, 32),
)


@given(st.dictionaries(networks, st.booleans(), max_size=12), st.integers(0, 255))
def test_spans_say_of_each_address_what_the_longest_prefix_says(
    routes: dict[ipaddress.IPv4Network, bool], last: int
) -> None:
    address = ipaddress.IPv4Address(f"10.0.0.{last}")
    spans = route_spans([Route(str(network), nat) for network, nat in routes.items()], 4)
    assert all(left[1] < right[0] for left, right in itertools.pairwise(spans))
    around = sorted((network for network in routes if address in network), key=lambda network: network.prefixlen)
    expected = [routes[around[-1]]] if around else []
    assert [nat for first, end, nat in spans if first <= int(address) <= end] == expected


def test_table_is_replaced_in_one_transaction() -> None:
    lines = ruleset((RED,), 9790).splitlines()
    assert lines[:3] == ["table inet wgvpn", "delete table inet wgvpn", "table inet wgvpn {"]


def test_everything_not_allowed_is_dropped_also_without_servers() -> None:
    text = ruleset((), 9790)
    assert 'iifname != "lo" iifname != "wgs*" tcp dport 9790 drop' in text
    assert text.count('iifname "wgs*" drop') == 2  # input and forward
    assert text.count('oifname "wgs*" drop') == 1
    assert text.count("accept") == 4  # the chains' policies, and replies to the host's own connections
    assert "masquerade" not in text


def test_ipv6_has_no_rule_where_the_server_has_no_ipv6() -> None:
    text = ruleset((dataclasses.replace(RED, routes=(Route("::/0", True),)),), 9790)
    assert "ip6" not in text
    assert "icmpv6" not in text


def test_size_of_rules_does_not_grow_with_routes() -> None:
    routes = tuple(Route(f"10.{number // 250}.{number % 250}.0/25", True) for number in range(5000))
    few, many = (ruleset((dataclasses.replace(RED, routes=each),), 9790).count("\n") for each in (routes[:1], routes))
    assert few == many


@pytest.mark.parametrize("name", ["wgs1; flush ruleset", 'wgs1"', "eth0", "wgs", ""])
def test_nothing_but_our_names_gets_into_the_text(name: str) -> None:
    with pytest.raises(FirewallError):
        ruleset((dataclasses.replace(RED, name=name),), 9790)
