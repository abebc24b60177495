"""What the table says of links to other installations: the networks that each side named, and nothing else."""

from __future__ import annotations

import dataclasses

from servers.hostnet.firewall.table import ruleset
from servers.hostnet.state import Interface, Link, OpenVpn, Route
from tests.servers.hostnet.firewall.test_ruleset import chain

END = OpenVpn("wgo3", 1194, (), "end-b", "", "", "", "")
LINK = Link(
    "a1b2", "", ("10.19.0.0/24", "10.51.0.0/24", "fd19::/64"), offered=(Route("10.50.0.0/24", False),), openvpn=END,
    outside=True, shown=("10.9.0.0/24", "10.77.0.0/24", "10.50.0.0/24"),
)  # fmt: skip
OWN = Interface(
    "wgs1", "red", 51820, ("10.9.0.1/24", "fd01::1/64"), 0, False, 360,
    (Route("10.50.0.0/24", False), Route("10.60.0.0/24", False)), (), behind=("10.77.0.0/24", "10.78.0.0/24"),
    links=(LINK,),
)  # fmt: skip
THERE = "{ 10.19.0.0/24, 10.51.0.0/24 }"


def rules(name: str, shown: tuple[str, ...] = LINK.shown) -> list[str]:
    link = dataclasses.replace(LINK, shown=shown)
    text = ruleset((dataclasses.replace(OWN, links=(link,)),), 9790, None)
    found = chain(text, name)
    assert found[-1] == "drop"
    return [rule for rule in found if "10." in rule or "fd" in rule]


def test_only_what_both_named_passes_in_either_direction() -> None:
    own = "{ 10.9.0.0/24, 10.77.0.0/24 }"
    for name, way, match in (
        ("to_links", 'iifname "{}" oifname "wgo3"', f"ip saddr {own} ip daddr {THERE} accept"),
        ("from_links", 'iifname "wgo3" oifname "{}"', f"ip daddr {own} ip saddr {THERE} accept"),
    ):
        # By the mesh, clients that are on other hosts.
        assert rules(name) == [f"{way.format(each)} {match}" for each in ("wgs1", "wgm*")]
    assert rules("links_outwards") == [f'iifname "wgo3" ip saddr {THERE} ip daddr {{ 10.50.0.0/24 }} accept']
    # What it is not shown is in no rule: another route, another network behind clients, this server's IPv6.
    for name in ("to_links", "from_links", "links_outwards", "outside_to_links"):
        assert not [rule for rule in rules(name) if "10.60." in rule or "10.78." in rule or "fd01:" in rule]


def test_who_is_shown_routes_alone_reaches_no_client_and_is_reached_by_none() -> None:
    shown = ("10.50.0.0/24",)
    assert rules("to_links", shown=shown) == []
    assert rules("from_links", shown=shown) == []
    assert len(rules("links_outwards", shown=shown)) == 1
    assert len(rules("outside_to_links", shown=shown)) == 2  # without NAT they open connections as well, and answer


def test_what_is_there_leaves_by_no_other_interface() -> None:
    text = ruleset((OWN,), 9790, None)
    first = chain(text, "forward")
    for networks in (f"ip daddr {THERE}", "ip6 daddr { fd19::/64 }"):
        assert f'iifname "wgs1" oifname != "wgo3" {networks} drop' in first
    assert 'iifname "wgo*" drop' in chain(text, "input")
