"""Which networks go through the tunnel, and as which routes."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wgpeer.responses import Route
from wgpeer.tunnel.split_tunnel import THROW, UNICAST, UNREACHABLE, MainTable, TableRoute, split_routes


def names(table: set[TableRoute]) -> tuple[set[str], set[str]]:
    """Networks through the tunnel, and networks thrown on."""
    through = {entry.network for entry in table if entry.kind == UNICAST}
    return through, {entry.network for entry in table if entry.kind == THROW}


def near(*networks: str) -> MainTable:
    return MainTable(frozenset(map(ipaddress.ip_network, networks)))


def test_networks_are_split() -> None:
    routes = [Route("10.9.0.0/24"), Route("0.0.0.0/0"), Route("192.0.2.0/24", excluded=True), Route("::/0")]
    wanted = split_routes(routes, "10.9.0.1", use_default_route=True)
    assert wanted.allowed_ips == ("0.0.0.0/0", "10.9.0.0/24", "10.9.0.1/32", "::/0")
    first, last = wanted.tables(socket.AF_INET, near())
    assert names(first) == ({"10.9.0.0/24", "10.9.0.1/32"}, {"192.0.2.0/24"})
    assert names(last) == ({"0.0.0.0/0"}, {"192.0.2.0/24"})
    first6, last6 = wanted.tables(socket.AF_INET6, near())
    assert (names(first6), names(last6)) == ((set(), set()), ({"::/0"}, set()))
    assert wanted.description == "IPv4 and IPv6: everything but this machine's LANs; not 192.0.2.0/24"


def test_behind_each_whole_internet_route_stands_an_unreachable_one() -> None:
    wanted = split_routes([Route("0.0.0.0/0", metric=50), Route("::/0")], "10.9.0.1", use_default_route=True)
    for family, everything in ((socket.AF_INET, "0.0.0.0/0"), (socket.AF_INET6, "::/0")):
        _, last = wanted.tables(family, near())
        by_metric = [entry.kind for entry in sorted(last, key=lambda entry: entry.metric)]
        assert by_metric == [UNICAST, UNREACHABLE]
        assert {entry.network for entry in last} == {everything}


def test_what_the_interface_cannot_carry_is_unreachable_and_not_left_to_leak() -> None:
    wanted = split_routes([Route("::/0"), Route("2001:db8:50::/64")], "10.9.0.1", use_default_route=True)
    first, last = wanted.tables(socket.AF_INET6, near(), usable=False)
    assert {entry.kind for entry in first | last} == {UNREACHABLE}
    assert {entry.network for entry in first | last} == {"::/0", "2001:db8:50::/64"}


def test_a_metric_is_set_and_a_lower_one_of_the_main_table_keeps_its_network() -> None:
    ten, twenty = ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("20.0.0.0/8")
    main = MainTable(metrics={ten: 100, twenty: 100, ipaddress.ip_network("30.0.0.0/8"): 0})
    routes = [Route(str(ten), metric=200), Route(str(twenty), metric=50), Route("30.0.0.0/8"), Route("0.0.0.0/0")]
    first, _ = split_routes(routes, "10.9.0.1", use_default_route=True).tables(socket.AF_INET, main)
    assert names(first)[1] == {"10.0.0.0/8"}
    assert TableRoute("20.0.0.0/8", UNICAST, 50) in first
    assert TableRoute("30.0.0.0/8", UNICAST, 0) in first
    twice = [Route("20.0.0.0/8", metric=7), Route("20.0.0.0/8", metric=9)]
    assert split_routes(twice, "10.9.0.1", use_default_route=True).included[twenty] == 7


@pytest.mark.parametrize("whole", ["0.0.0.0/0", "::/0"])
def test_the_internet_in_pieces_around_what_is_kept_outside_is_the_internet(whole: str) -> None:
    """So a server sends it, for clients that know no networks outside."""
    holes = {"0.0.0.0/0": ["203.0.113.77/32", "192.0.2.0/24"], "::/0": ["2001:db8:77::/64", "2001:db8::1/128"]}[whole]
    pieces: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = [ipaddress.ip_network(whole)]
    for hole in map(ipaddress.ip_network, holes):
        cut = [part for piece in pieces if hole.subnet_of(piece) for part in piece.address_exclude(hole)]  # type: ignore[arg-type]
        pieces = [piece for piece in pieces if not hole.subnet_of(piece)] + cut  # type: ignore[arg-type]
    other = "10.50.0.0/16" if whole == "0.0.0.0/0" else "fd50::/64"
    sent = [Route(str(piece)) for piece in pieces] + [Route(hole, excluded=True) for hole in holes] + [Route(other)]
    wanted = split_routes(sent, "10.9.0.1", use_default_route=True)
    assert [str(network) for network in wanted.default_routes] == [whole]
    assert {str(network) for network in wanted.included} == {other, "10.9.0.1/32"}
    assert {str(network) for network in wanted.excluded} == set(holes)
    assert split_routes(sent, "10.9.0.1", use_default_route=False).default_routes == {}
    for missing in range(len(pieces)):  # one piece less, and it is not the internet any more
        less = split_routes([*sent[:missing], *sent[missing + 1 :]], "10.9.0.1", use_default_route=True)
        assert less.default_routes == {}
        assert len(less.included) == len(pieces) + 1


def test_without_default_route_nothing_else_is_lost() -> None:
    wanted = split_routes([Route("0.0.0.0/0"), Route("10.0.0.0/8")], "10.9.0.1", use_default_route=False)
    assert wanted.allowed_ips == ("10.0.0.0/8", "10.9.0.1/32")
    assert wanted.tables(socket.AF_INET, near())[1] == set()
    assert wanted.description == "10.0.0.0/8"


def test_the_lan_inside_a_network_of_the_tunnel_stays_its_own() -> None:
    wanted = split_routes([Route("10.0.0.0/8")], "10.9.0.1", use_default_route=True)
    first, _ = wanted.tables(socket.AF_INET, near("10.1.2.0/24", "10.0.0.0/8", "192.168.1.0/24", "fd00::/64"))
    assert names(first) == ({"10.0.0.0/8", "10.9.0.1/32"}, {"10.1.2.0/24"})


def test_name_servers_in_no_route_are_known() -> None:
    routes = [Route("10.0.0.0/8"), Route("10.5.0.0/16", excluded=True), Route("::/0")]
    wanted = split_routes(routes, "10.9.0.1", use_default_route=True)
    carried = {text: wanted.covers(text) for text in ("10.1.1.1", "10.5.1.1", "8.8.8.8", "2001:db8::1", "10.9.0.1")}
    assert carried == {"10.1.1.1": True, "10.5.1.1": False, "8.8.8.8": False, "2001:db8::1": True, "10.9.0.1": True}


networks4 = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(
    lambda pair: f"{socket.inet_ntoa((pair[0] >> (32 - pair[1]) << (32 - pair[1])).to_bytes(4, 'big'))}/{pair[1]}"
)


@settings(deadline=None)
@given(st.lists(st.tuples(networks4, st.booleans()), max_size=8), st.lists(networks4, max_size=5))
def test_the_gateway_is_always_inside(pairs: list[tuple[str, bool]], others: list[str]) -> None:
    wanted = split_routes([Route(*pair) for pair in pairs], "10.9.0.1", use_default_route=True)
    first, last = wanted.tables(socket.AF_INET, near(*others))
    assert "10.9.0.1/32" in names(first)[0]
    assert "10.9.0.1/32" not in names(first)[1]
    assert {entry.network for entry in first} & {"0.0.0.0/0"} <= {name for name, outside in pairs if outside}
    assert all(entry.network == "0.0.0.0/0" or entry.kind == THROW for entry in last)


inner_networks = st.tuples(st.integers(0, 2**16 - 1), st.integers(16, 32)).map(
    lambda pair: str(ipaddress.ip_network((0x0A000000 | pair[0], pair[1]), strict=False))
)


@settings(deadline=None)
@given(
    st.lists(st.tuples(inner_networks, st.booleans()), max_size=6),
    st.lists(inner_networks, max_size=4),
    st.lists(inner_networks, max_size=3),
    st.integers(0, 2**16 - 1),
)
@example([("10.0.0.0/16", False), ("10.0.0.0/17", False)], ["10.0.0.0/17"], [], 0)
def test_the_guard_lets_out_just_what_the_routes_leave_outside(
    pairs: list[tuple[str, bool]], lans: list[str], routed: list[str], host: int
) -> None:
    """By the kernel's rule, the longest prefix of table A, and then the main table without its default."""
    sent = [Route("0.0.0.0/0"), *(Route(network, excluded=outside) for network, outside in pairs)]
    wanted = split_routes(sent, "10.9.0.1", use_default_route=True)
    connected = frozenset(map(ipaddress.ip_network, lans))
    main = MainTable(connected, dict.fromkeys([*connected, *map(ipaddress.ip_network, routed)], 0))
    address = ipaddress.ip_address(0x0A000000 | host)
    if not wanted.default_routes:
        return  # what is kept outside is all of the internet
    first, last = wanted.tables(socket.AF_INET, main)
    matching = [entry for entry in first if address in ipaddress.ip_network(entry.network)]
    best = min(matching, key=lambda entry: (-ipaddress.ip_network(entry.network).prefixlen, entry.metric), default=None)
    kept = any(address in ipaddress.ip_network(entry.network) for entry in last if entry.kind == THROW)
    beside = kept or any(address in network for network in main.metrics)
    expected = (best is None or best.kind == THROW) and beside
    assert expected == any(low <= int(address) <= high for low, high in wanted.outside(socket.AF_INET, main))


def test_a_route_for_half_the_internet_is_no_lan() -> None:
    """An answer of a false DHCP server, for one."""
    wanted = split_routes([Route("0.0.0.0/0"), Route("::/0")], "10.9.0.1", use_default_route=True)
    halves = dict.fromkeys(map(ipaddress.ip_network, ("0.0.0.0/1", "128.0.0.0/1", "2000::/3", "10.0.0.0/8")), 0)
    main = MainTable(metrics=halves)
    left = wanted.outside(socket.AF_INET, main)
    assert left == [(0x0A000000, 0x0A090000), (0x0A090002, 0x0AFFFFFF)]  # but for the gateway
    assert wanted.outside(socket.AF_INET6, main) == []


def test_what_another_tunnel_carries_inside_a_network_of_ours_is_left_to_it() -> None:
    wanted = split_routes([Route("10.0.0.0/8"), Route("10.5.1.0/24")], "10.9.0.1", use_default_route=True)
    others = [ipaddress.ip_network(text) for text in ("10.5.0.0/16", "10.5.1.0/24", "10.0.0.0/8", "10.0.0.0/7")]
    first, _ = wanted.tables(socket.AF_INET, near(), others=others)
    assert names(first) == ({"10.0.0.0/8", "10.5.1.0/24", "10.9.0.1/32"}, {"10.5.0.0/16"})


def test_lans_that_the_tunnel_swallows_are_known() -> None:
    wanted = split_routes([Route("192.168.7.0/24"), Route("10.5.0.0/16")], "10.9.0.1", use_default_route=True)
    main = near("192.168.7.0/24", "10.0.0.0/8", "10.5.6.0/24", "172.16.0.0/16")
    assert [str(lan) for lan in wanted.swallowed_lans(main)] == ["10.0.0.0/8", "192.168.7.0/24"]
    assert wanted.swallowed_lans(MainTable(main.connected, tunnelled=main.connected)) == []
