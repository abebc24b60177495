"""What the table says of links that OpenVPN carries: each rule names the link's own interface, and nothing for the
other end leaves by another one."""

from __future__ import annotations

import dataclasses

from servers.hostnet.firewall.table import ruleset
from servers.hostnet.state import Interface, Link, Mesh, OpenVpn, Route
from tests.servers.hostnet.firewall.test_ruleset import chain

END = OpenVpn("wgo2", 1194, (), "end-b", "", "", "", "")
LINK = Link(
    "blue", "wgs2", ("10.10.0.0/24", "fd02::/64"), ("10.77.0.0/24",), routed=(Route("10.51.0.0/24", False),),
    offered=(Route("10.50.0.0/24", True, "eth1"),), openvpn=END,
)  # fmt: skip
RED = Interface(
    "wgs1", "red", 51820, ("10.9.0.1/24", "fd01::1/64"), 0, True, 360, (Route("0.0.0.0/0", True),), (), links=(LINK,)
)
MESH = Mesh(("fd5c::1/128",), 51800, 0, (), (), ())


def text(interface: Interface = RED) -> str:
    return ruleset((interface,), 9790, MESH)


def of_link(name: str) -> list[str]:
    return [rule for rule in chain(text(), name) if "10." in rule or "fd0" in rule]


def test_each_way_between_the_networks_of_both_by_the_links_own_interface() -> None:
    own = ('"wgs1"', '"wgm*"')  # its clients here, and by the mesh those on other hosts
    assert of_link("to_links") == [
        f'iifname {each} oifname "wgo2" {match} accept'
        for each in own
        for match in (
            "ip saddr { 10.9.0.0/24 } ip daddr { 10.10.0.0/24, 10.77.0.0/24 }",
            "ip6 saddr { fd01::/64 } ip6 daddr { fd02::/64 }",
            "ip daddr { 10.51.0.0/24 }",
        )
    ]
    from_there = of_link("from_links")
    back = tuple(f'iifname "wgo2" oifname {each}' for each in own)
    for way in back:
        assert f"{way} ip daddr {{ 10.9.0.0/24 }} ip saddr {{ 10.10.0.0/24, 10.77.0.0/24 }} accept" in from_there
    assert all(rule.startswith(back) for rule in from_there)
    assert of_link("links_outwards") == [
        'iifname "wgo2" ip saddr { 10.10.0.0/24, 10.77.0.0/24 } ip daddr { 10.50.0.0/24 } accept'
    ]
    assert all(rule.startswith('oifname "wgo2" ') for rule in of_link("outside_to_links"))
    for name in ("to_links", "from_links", "links_outwards", "outside_to_links"):
        assert chain(text(), name)[-1] == "drop"


def test_what_is_for_the_other_end_leaves_by_no_other_interface() -> None:
    first = chain(text(), "forward")
    assert (
        'iifname "wgs1" oifname != "wgo2" ip daddr { 10.10.0.0/24, 10.51.0.0/24, 10.77.0.0/24 } drop' in first
        or 'iifname "wgs1" oifname != "wgo2" ip daddr { 10.10.0.0/24, 10.77.0.0/24, 10.51.0.0/24 } drop' in first
    )
    assert 'iifname "wgs1" oifname != "wgo2" ip6 daddr { fd02::/64 } drop' in first
    before = first.index('iifname "wgs1" oifname != "wgo2" ip6 daddr { fd02::/64 } drop')
    assert before < first.index('iifname "wgs*" oifname "wgo*" goto to_links')


def test_nothing_of_it_goes_through_the_mesh() -> None:
    for name in ("to_mesh", "from_mesh", "mesh_outwards", "outside_to_mesh"):
        assert not [rule for rule in chain(text(), name) if "10.10." in rule or "10.51." in rule or "10.50." in rule]


def test_the_host_itself_has_nothing_for_who_comes_through_it_and_its_port_is_never_forwarded() -> None:
    received = chain(text(), "input")
    assert 'iifname "wgo*" drop' in received
    assert received.index('iifname "wgo*" drop') < received.index('iifname "lo" accept')
    assert "udp dport { 1194, 51800, 51820 } return" in chain(text(), "prerouting")
    sends = dataclasses.replace(LINK, openvpn=dataclasses.replace(END, addresses=("198.51.100.1",)))
    assert "udp dport { 51800, 51820 } return" in chain(text(dataclasses.replace(RED, links=(sends,))), "prerouting")


def test_where_another_host_has_the_end_all_of_it_goes_there_by_the_mesh() -> None:
    link = dataclasses.replace(LINK, openvpn=None, via="other", there=True)
    there = text(dataclasses.replace(RED, links=(link,)))
    out = [rule for rule in chain(there, "to_mesh") if "10.10." in rule or "10.51." in rule]
    back = [rule for rule in chain(there, "from_mesh") if "10.10." in rule or "10.51." in rule]
    assert 'iifname "wgs1" ip saddr { 10.9.0.0/24 } ip daddr { 10.10.0.0/24, 10.77.0.0/24 } accept' in out
    assert 'iifname "wgs1" ip daddr { 10.51.0.0/24 } accept' in out
    assert 'oifname "wgs1" ip daddr { 10.9.0.0/24 } ip saddr { 10.10.0.0/24, 10.77.0.0/24 } accept' in back
    for name in ("to_links", "from_links", "links_outwards", "outside_to_links"):
        assert not [rule for rule in chain(there, name) if "10." in rule]


def test_without_such_links_what_has_that_name_is_dropped() -> None:
    alone = text(dataclasses.replace(RED, links=()))
    for name in ("to_links", "from_links", "links_outwards", "outside_to_links"):
        assert not [rule for rule in chain(alone, name) if "10." in rule]
        assert chain(alone, name)[-1] == "drop"
