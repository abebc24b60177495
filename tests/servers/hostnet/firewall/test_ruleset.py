"""The text of our nftables table, and what it is made of. What it does to packets is in tests/host."""

from __future__ import annotations

import dataclasses
import ipaddress
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.hostnet.firewall.intervals import Network, mapped, most_specific
from servers.hostnet.firewall.port_forwards import Changed, Forwards
from servers.hostnet.firewall.route_policy import RoutePolicy
from servers.hostnet.firewall.table import Firewall, FirewallError, ruleset
from servers.hostnet.state import Forward, Interface, Peer, Remote, Route

RED = Interface("wgs1", "red", 51820, ("10.9.0.1/24",), 0, False, 360, (Route("10.0.0.0/8", False),), ())
EVERYTHING = (0, (1 << 32) - 1)


def number(address: str) -> int:
    return int(ipaddress.ip_address(address))


def network(text: str) -> Network:
    return ipaddress.ip_network(text)


def interval(text: str) -> tuple[int, int]:
    return int(network(text).network_address), int(network(text).broadcast_address)


def policy(*routes: Route, version: int = 4, restrict: bool = True, behind: tuple[str, ...] = ()) -> RoutePolicy:
    return RoutePolicy.of(dataclasses.replace(RED, routes=routes, restrict=restrict, behind=behind), version)


def pairs(*texts: str) -> list[tuple[Network, Network]]:
    return [(network(here), network(there)) for here, there in (text.split() for text in texts)]


# Networks that overlap


def test_more_specific_network_decides() -> None:
    networks = {"0.0.0.0/0": 1, "10.0.0.0/8": 2, "10.20.0.0/16": 1}
    assert most_specific({network(text): label for text, label in networks.items()}) == [
        (0, number("9.255.255.255"), 1),
        (number("10.0.0.0"), number("10.19.255.255"), 2),
        (number("10.20.0.0"), number("10.20.255.255"), 1),
        (number("10.21.0.0"), number("10.255.255.255"), 2),
        (number("11.0.0.0"), number("255.255.255.255"), 1),
    ]
    assert most_specific({network("::/0"): 1}) == [(0, (1 << 128) - 1, 1)]


def test_neighbours_alike_are_joined() -> None:
    halves = {network("10.0.0.0/9"): 1, network("10.128.0.0/9"): 1}
    assert most_specific(halves) == [(*interval("10.0.0.0/8"), 1)]


# Few addresses, so that networks overlap: 10.0.0.0 to 10.0.0.255.
networks = st.builds(
    lambda address, length: ipaddress.ip_network((f"10.0.0.{address}", length), strict=False),
    st.integers(0, 255),
    st.integers(24, 32),
)


@given(st.dictionaries(networks, st.booleans(), max_size=12), st.integers(0, 255))
def test_spans_say_of_each_address_what_the_longest_prefix_says(said: dict[Network, bool], last: int) -> None:
    address = ipaddress.IPv4Address(f"10.0.0.{last}")
    intervals = most_specific(said)
    assert all(left[1] < right[0] for left, right in itertools.pairwise(intervals))
    around = sorted((each for each in said if address in each), key=lambda each: each.prefixlen)
    expected = [said[around[-1]]] if around else []
    assert [label for first, end, label in intervals if first <= int(address) <= end] == expected


@given(networks, st.integers(0, 255), st.integers(0, 255))
def test_pieces_of_a_netmap_keep_the_distance_from_its_beginning(here: Network, first: int, last: int) -> None:
    there = ipaddress.ip_network((f"192.168.{first}.{last}", here.prefixlen), strict=False)
    base = int(here.network_address)
    begin, end = base + first % here.num_addresses, base + last % here.num_addresses
    begin, end = min(begin, end), max(begin, end)
    covered: dict[int, int] = {}
    for piece, real in mapped([(begin, end, (here, there))]):
        covered |= dict(zip(map(int, piece), map(int, real), strict=True))
    assert covered == {n: n - base + int(there.network_address) for n in range(begin, end + 1)}


# What routes say


def test_routes_with_and_without_nat() -> None:
    it = policy(Route("10.1.0.0/16", True), Route("10.2.0.0/16", False), Route("10.3.0.0/16", True, "eth1"))
    assert it.routes == [interval("10.1.0.0/16"), interval("10.2.0.0/16"), interval("10.3.0.0/16")]
    assert it.plain == [interval("10.2.0.0/16")]
    assert it.nat == {"": [interval("10.1.0.0/16")], "eth1": [interval("10.3.0.0/16")]}
    assert it.given == [(number("10.1.0.0"), number("10.3.255.255"))]
    assert (it.netmap, it.unmap) == ([], [])
    assert policy(Route("10.1.0.0/16", True), version=6).routes == []


def test_without_restriction_everything_is_reached_where_no_route_says_otherwise() -> None:
    assert policy(restrict=False).nat == {"": [EVERYTHING]}
    assert policy(restrict=False).given == []  # clients were given no such route
    assert policy(restrict=False, version=6).routes == [(0, (1 << 128) - 1)]
    it = policy(Route("10.0.0.0/8", False), restrict=False)
    assert it.plain == [interval("10.0.0.0/8")]
    assert it.nat[""] == [(0, number("9.255.255.255")), (number("11.0.0.0"), EVERYTHING[1])]
    assert policy(Route("0.0.0.0/0", False), restrict=False).plain == [EVERYTHING]


def test_what_clients_may_serve_is_no_part_of_a_wider_route() -> None:
    for it in (
        policy(Route("0.0.0.0/0", True), behind=("10.77.0.0/16",)),
        policy(restrict=False, behind=("10.77.0.0/16",)),
    ):
        assert it.routes == [(0, number("10.76.255.255")), (number("10.78.0.0"), EVERYTHING[1])]
    # A route within it decides there.
    assert policy(Route("10.77.1.0/24", True), behind=("10.77.0.0/16",)).routes == [interval("10.77.1.0/24")]


def test_netmap_leads_there_and_without_nat_back() -> None:
    it = policy(Route("10.60.0.0/24", False, "", "10.50.0.0/24"), Route("10.61.0.0/24", True, "", "10.51.0.0/24"))
    assert it.netmap == pairs("10.60.0.0/24 10.50.0.0/24", "10.61.0.0/24 10.51.0.0/24")
    assert it.unmap == pairs("10.50.0.0/24 10.60.0.0/24")
    assert (it.routes, it.nat) == ([], {"": [interval("10.61.0.0/24")]})
    assert it.real == [interval("10.50.0.0/24"), interval("10.51.0.0/24")]
    assert it.open == [interval("10.50.0.0/24")]


def test_more_specific_route_cuts_a_hole_into_a_netmap() -> None:
    it = policy(Route("10.60.0.0/24", False, "", "10.50.0.0/24"), Route("10.60.0.128/25", True))
    assert it.netmap == pairs("10.60.0.0/25 10.50.0.0/25")
    assert it.unmap == pairs("10.50.0.0/25 10.60.0.0/25")
    assert it.routes == [interval("10.60.0.128/25")]


def test_real_network_is_known_by_one_name_only() -> None:
    it = policy(Route("10.60.0.0/24", False, "", "10.50.0.0/24"), Route("10.61.0.0/24", False, "", "10.50.0.0/24"))
    assert it.netmap == pairs("10.60.0.0/24 10.50.0.0/24", "10.61.0.0/24 10.50.0.0/24")
    assert it.unmap == pairs("10.50.0.0/24 10.60.0.0/24")


def test_real_network_is_hidden_from_wider_routes_but_not_from_its_own() -> None:
    netmap = Route("10.60.0.0/24", False, "", "10.50.0.0/24")
    assert policy(netmap, Route("10.48.0.0/14", True)).routes == [
        (number("10.48.0.0"), number("10.49.255.255")),
        (number("10.50.1.0"), number("10.51.255.255")),
    ]
    assert policy(netmap, Route("10.50.0.0/24", True)).routes == [interval("10.50.0.0/24")]
    assert policy(netmap, Route("10.50.0.7/32", True)).routes == [interval("10.50.0.7/32")]


# Which port leads to whom


def peer(name: str, version: int, *forwards: Forward, addresses: tuple[str, ...] = ()) -> Peer:
    return Peer(name, version, "key", addresses or (f"10.9.0.{version}/32",), forwards=forwards)


def elsewhere(name: str, number: int, *forwards: Forward) -> Remote:
    return Remote(name, 1, number, "red", "berlin", (f"10.9.0.{number}/32",), forwards=forwards)


def test_ranges_become_single_ports_in_every_family_of_the_peer() -> None:
    both = peer("a", 1, Forward("tcp", 80, 81, 8080), addresses=("10.9.0.1/32", "fd01::1/128"))
    assert Forwards([both]).elements() == {
        ("forwards4", "tcp . 80 : 10.9.0.1 . 8080"),
        ("forwards4", "tcp . 81 : 10.9.0.1 . 8081"),
        ("forwards6", "tcp . 80 : fd01::1 . 8080"),
        ("forwards6", "tcp . 81 : fd01::1 . 8081"),
        *((f"targets{v}", f"{a} . tcp . {p}") for v, a in ((4, "10.9.0.1"), (6, "fd01::1")) for p in (8080, 8081)),
    }


def test_newest_peer_has_a_port_that_two_want() -> None:
    old, new = peer("old", 5, Forward("tcp", 80, 80, 80)), peer("new", 6, Forward("tcp", 80, 80, 80))
    granted = {("forwards4", "tcp . 80 : 10.9.0.6 . 80"), ("targets4", "10.9.0.6 . tcp . 80")}
    assert Forwards([old, new]).elements() == Forwards([new, old]).elements() == granted
    forwards = Forwards([old, new])
    changed = forwards.change([new], [])
    assert (set(changed.delete), set(changed.add)) == (granted, Forwards([old]).elements())
    assert forwards.change([new], []) == Changed()


def test_peer_that_reconnects_with_its_address_changes_nothing() -> None:
    before = peer("before", 5, Forward("udp", 53, 53, 53), addresses=("10.9.0.9/32",))
    after = dataclasses.replace(before, connection="after", version=6)
    assert Forwards([before]).change([before], [after]) == Changed()


def test_client_that_moves_from_host_to_host_keeps_its_ports_and_what_goes_another_way_is_said() -> None:
    there = elsewhere("there", 9, Forward("udp", 53, 53, 53))
    further = dataclasses.replace(there, connection="further", number=10, host="paris")
    here = dataclasses.replace(peer("here", 1, *there.forwards), allowed_ips=there.allowed_ips)
    way = [("forwards4", "udp . 53 : 10.9.0.9 . 53")]
    forwards = Forwards([there])
    assert {*way} < forwards.elements()
    # A peer of this host comes before all others, whose versions are other hosts'.
    for gone, new in (([there], [further]), ([], [here]), ([further], []), ([here], [there])):
        before, changed = Forwards([*gone, there]), forwards.change(gone, new)
        assert (changed.delete, changed.add) == ([], [])
        assert changed.elsewhere == ([] if gone == [further] else way)
        assert before.elsewhere(before) == []
    assert Forwards([here]).elsewhere(Forwards([there])) == Forwards([there]).elsewhere(Forwards([here])) == way
    assert Forwards([further, there]).elsewhere(Forwards([further])) == []


ports = st.builds(
    lambda protocol, port, more, to: Forward(protocol, port, port + more, to),
    st.sampled_from(("tcp", "udp")),
    st.integers(1, 6),
    st.integers(0, 3),
    st.integers(1, 4),
)
peers = st.builds(
    lambda make, name, version, each: make(name, version, *each),
    st.sampled_from((peer, elsewhere)),
    st.sampled_from("abc"),
    st.integers(1, 9),
    st.lists(ports, max_size=3),
)


@given(st.lists(st.tuples(peers, st.booleans()), max_size=12))
def test_changes_add_up_to_what_a_full_state_gives(steps: list[tuple[Peer | Remote, bool]]) -> None:
    forwards, here, table = Forwards(), dict[str, Peer | Remote](), set[tuple[str, str]]()
    for new, stays in steps:
        before, old = Forwards(here.values()), here.pop(new.connection, None)
        changed = forwards.change([old] if old else [], [new] if stays else [])
        # nftables refuses to delete what is not there, and to add a key twice.
        assert set(changed.delete) <= table
        assert not set(changed.add) & table
        table = table - set(changed.delete) | set(changed.add)
        if stays:
            here[new.connection] = new
        assert table == forwards.elements() == Forwards(here.values()).elements()
        moved = set(forwards.elsewhere(before))
        # Of those whose text changed as well it does not matter: all of them are looked at.
        assert {name for name in moved if name in before.elements()} <= {*changed.elsewhere}
        keys = [element.partition(" : ")[0] for name, element in table if name == "forwards4"]
        assert len(keys) == len(set(keys))


# The text


def chain(text: str, name: str) -> list[str]:
    _, _, rest = text.partition(f"\tchain {name} {{\n")
    return [line.strip() for line in rest.partition("\t}\n")[0].splitlines()]


def test_table_is_replaced_in_one_transaction() -> None:
    lines = ruleset((RED,), 9790).splitlines()
    assert lines[:3] == ["table inet wgvpn", "delete table inet wgvpn", "table inet wgvpn {"]


def test_everything_not_allowed_is_dropped_also_without_servers() -> None:
    text = ruleset((), 9790)
    # Whatever comes from a tunnel or goes to one is in one of these chains, and does not come back from there.
    assert chain(text, "input")[1:] == [
        'iifname "wgs*" goto services',
        'iifname "wgm*" goto mesh',
        'iifname "wgo*" meta l4proto { icmp, ipv6-icmp } ct state related accept',
        'iifname "wgo*" drop',
        'iifname "lo" accept',
        "tcp dport 9790 drop",
    ]
    assert chain(text, "forward")[1:] == [
        'iifname "wgs*" oifname "wgo*" goto to_links',
        'iifname "wgo*" oifname "wgs*" goto from_links',
        'iifname "wgm*" oifname "wgo*" goto to_links',
        'iifname "wgo*" oifname "wgm*" goto from_links',
        'iifname "wgo*" goto links_outwards',
        'oifname "wgo*" goto outside_to_links',
        'iifname "wgs*" oifname "wgm*" goto to_mesh',
        'iifname "wgm*" oifname "wgs*" goto from_mesh',
        'iifname "wgm*" goto mesh_outwards',
        'oifname "wgm*" goto outside_to_mesh',
        'iifname "wgs*" oifname "wgs*" goto between',
        'iifname "wgs*" goto outwards',
        'oifname "wgs*" goto inwards',
    ]
    shut = (
        "ended",
        "services",
        "between",
        "outwards",
        "inwards",
        "mesh",
        "to_mesh",
        "from_mesh",
        "mesh_outwards",
        "outside_to_mesh",
        "to_links",
        "from_links",
        "links_outwards",
        "outside_to_links",
    )
    assert all(chain(text, name)[-1] == "drop" for name in shut)
    # What the mesh and links carry is never translated, which opens nothing.
    assert chain(text, "prerouting")[1:3] == ['iifname "wgm*" accept', 'iifname "wgo*" accept']
    assert chain(text, "postrouting")[1:3] == ['oifname "wgm*" accept', 'oifname "wgo*" accept']
    accepts = [line.strip() for line in text.splitlines() if line.endswith(" accept") and "policy" not in line]
    # Replies to the host's own connections, and errors about others that are let through; there are none.
    untranslated = [f'{way} "{name}*"' for way in ("iifname", "oifname") for name in ("wgm", "wgo")]
    for each in ('iifname "lo"', *untranslated, "meta l4proto { icmp, ipv6-icmp }"):
        accepts.remove(f"{each} accept")
    assert len(accepts) == 13
    assert all("ct state" in accept for accept in accepts)
    assert "masquerade" not in text
    assert "dnat" not in text


def test_ipv6_has_no_rule_where_the_server_has_no_ipv6() -> None:
    text = ruleset((dataclasses.replace(RED, routes=(Route("::/0", True),), restrict=False),), 9790)
    assert "ip6" not in text
    assert "icmpv6" not in text


def test_peer_may_have_an_address_of_a_version_that_its_server_has_no_more() -> None:
    both = peer("a", 1, Forward("tcp", 80, 80, 8080), addresses=("10.9.0.1/32", "fd01::1/128"))
    text = ruleset((dataclasses.replace(RED, peers=(both,)),), 9790)
    assert "elements = { tcp . 80 : fd01::1 . 8080 }" in text  # as it is remembered: else it would seem to be gone
    assert "@forwards6" not in text


def test_who_has_ended_is_asked_about_before_anything_is_let_through() -> None:
    text = ruleset((dataclasses.replace(RED, peers=(peer("a", 1).lingering(13),)),), 9790)
    first = {name: chain(text, name)[0] for name in ("services", "outwards", "inwards")}
    assert first == {
        "services": "iifname . ip saddr @ended4 goto ended",
        "outwards": "iifname . ip saddr @ended4 drop",
        "inwards": "oifname . ip daddr @ended4 drop",
    }
    assert chain(text, "between")[:2] == [first["outwards"], first["inwards"]]
    assert chain(text, "ended") == ['iifname "wgs1" ip daddr 10.9.0.1 tcp dport 9790 accept', "drop"]
    assert f'elements = {{ "wgs1" . {peer("a", 1).allowed_ips[0].partition("/")[0]} }}' in text


def test_size_of_rules_does_not_grow_with_who_has_ended() -> None:
    many = tuple(peer(f"p{n}", n, addresses=(f"10.9.1.{n}/32",)).lingering(13) for n in range(1, 200))
    few, all_of_them = (ruleset((dataclasses.replace(RED, peers=each),), 9790).count("\n") for each in (many[:1], many))
    assert few == all_of_them


def test_a_packet_is_looked_at_by_as_few_rules_however_many_servers_there_are() -> None:
    many = [
        dataclasses.replace(RED, name=f"wgs{number}", server=str(number), port=50000 + number) for number in range(9)
    ]
    sizes = {len(chain(ruleset(some, 9790), name)) for some in (many[:1], many) for name in ("outwards", "inwards")}
    assert len(sizes) == 1


def test_size_of_rules_does_not_grow_with_routes_or_forwards() -> None:
    routes = tuple(Route(f"10.{number // 250}.{number % 250}.0/25", True) for number in range(5000))
    few, many = (ruleset((dataclasses.replace(RED, routes=each),), 9790).count("\n") for each in (routes[:1], routes))
    assert few == many
    one, thousand = (peer("a", 1, Forward("tcp", 1, last, 1)) for last in (1, 1000))
    few, many = (ruleset((dataclasses.replace(RED, peers=(each,)),), 9790).count("\n") for each in (one, thousand))
    assert few == many


@pytest.mark.parametrize("name", ["wgs1; flush ruleset", 'wgs1"', "eth0", "wgs", ""])
def test_nothing_but_our_names_gets_into_the_text(name: str) -> None:
    with pytest.raises(FirewallError):
        ruleset((dataclasses.replace(RED, name=name),), 9790)


@pytest.mark.parametrize("name", ['eth0"', "eth0 accept", "wgs2", "eth*", "a b", "-x", "x" * 16, "eth0\n"])
def test_nothing_but_names_of_interfaces_gets_into_the_text(name: str) -> None:
    with pytest.raises(FirewallError, match="NAT interface"):
        ruleset((dataclasses.replace(RED, routes=(Route("10.0.0.0/8", True, name),)),), 9790)


BAD_PEERS = [
    peer("a", 1, Forward("tcp . 1 : 1.1.1.1 . 1 }; flush ruleset", 1, 1, 1)),
    peer("a", 1, Forward("icmp", 1, 1, 1)),
    peer("a", 1, Forward("tcp", 1, 1, "1 }"), addresses=("10.9.0.5/32",)),  # type: ignore[arg-type]
    peer("a", 1, Forward("tcp", 1, 1, 1), addresses=("10.9.0.5 }; flush ruleset",)),
]


@pytest.mark.parametrize("bad", [*BAD_PEERS, BAD_PEERS[-1].lingering(13)])
def test_nothing_but_addresses_and_ports_of_peers_gets_into_the_text(bad: Peer) -> None:
    with pytest.raises(FirewallError):
        ruleset((dataclasses.replace(RED, peers=(bad,)),), 9790)


@pytest.mark.parametrize(
    "route", [Route("10.0.0.0/8 }", True), Route("10.0.0.1/8", True), Route("10.0.0.0/8", True, "", "x")]
)
def test_nothing_but_networks_gets_into_the_text(route: Route) -> None:
    with pytest.raises(FirewallError):
        ruleset((dataclasses.replace(RED, routes=(route,)),), 9790)


def test_single_changes_wait_for_the_first_table() -> None:
    with pytest.raises(FirewallError, match="no table yet"):
        Firewall().change(RED, [], [peer("a", 1, Forward("tcp", 1, 1, 1))])
    with pytest.raises(FirewallError, match="no table yet"):
        Firewall().change(RED, [peer("a", 1)], [peer("a", 1).lingering(13)])
    Firewall().change(RED, [], [peer("a", 1)])  # nothing to do, so nothing is asked of nftables
