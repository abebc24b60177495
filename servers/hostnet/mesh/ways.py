"""Ways to the networks of linked servers, through the mesh: for each interface of ours that needs any a routing table
of its own, which is asked for what comes from that interface and for nothing else. So neither the machine itself nor
another server's clients are sent there, whatever networks they have."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from servers.hostnet.netlink.links import LinkError
from servers.hostnet.state import PREFIX

from . import routes
from .routes import Asking, families

# The table of wgs<number> is this plus the number. Numbers beyond the space that is left have no ways.
TABLES = 1_000_000_000
MOST = 1_000_000_000
# Before the mesh's own table, since what is for clients is in none of these.
PRIORITY = 32690
WAYS = "the ways to linked servers"
LOOSE = "2"  # rp_filter: answers come from networks to which the main table knows another way
FILTER = "/proc/sys/net/ipv4/conf/{}/rp_filter"


def read(index: int) -> dict[str, frozenset[str]]:
    """By interface, the networks that are routed to the link ``index`` for what comes from it. Raise ``LinkError``."""
    with Asking(WAYS) as netlink:
        asked = list(_rules(netlink))
    whole = {name for name, _ in asked if all((name, family) in asked for family in families())}
    return {name: frozenset(routes.read(index, _table(name)) if name in whole else ()) for name, _ in asked}


def make_so(name: str, index: int, ways: Mapping[str, Collection[str]]) -> None:
    """Route what ``ways`` names, by interface, to the link ``index``, which is called ``name``, and nothing else that
    way. Raise ``LinkError``."""
    if ways:
        try:
            Path(FILTER.format(name)).write_text(LOOSE)
        except OSError as error:
            raise LinkError(f"{name}: {error}") from error
    with Asking(WAYS) as netlink:
        asked = list(_rules(netlink))
        for each in sorted({name for name, _ in asked} | ways.keys()):
            if table := _table(each):
                wanted, there = {*ways.get(each, ())}, routes.read(index, table)
                routes.change(index, sorted(wanted - there), sorted(there - wanted), table)
        for each, family in asked:
            if each not in ways:
                netlink.rule("del", **_rule(each, family))
        for each in ways:
            for family in families():
                if _table(each) and (each, family) not in asked:
                    netlink.rule("add", **_rule(each, family))


def forget() -> None:
    """Have none of it asked any more; the routes have gone with their link. Raise ``LinkError``."""
    with Asking(WAYS) as netlink:
        for each, family in list(_rules(netlink)):
            netlink.rule("del", **_rule(each, family))


def _table(interface: str) -> int:
    number = interface.removeprefix(PREFIX)
    return TABLES + int(number) if number.isdecimal() and int(number) < MOST else 0


def _rule(interface: str, family: int) -> dict[str, Any]:
    return {"family": family, "table": _table(interface), "priority": PRIORITY, "iifname": interface}


def _rules(netlink: IPRoute) -> Iterator[tuple[str, int]]:
    """The interface and the family of each rule of ours."""
    for family in families():
        for rule in netlink.get_rules(family=family):
            name = rule.get_attr("FRA_IIFNAME") or ""
            if rule.get_attr("FRA_PRIORITY") == PRIORITY and rule.get_attr("FRA_TABLE") == _table(name) != 0:
                yield name, family
