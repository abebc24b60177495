"""What is routed into links, in tables of their own, as with the mesh.

Clients at the other end and the networks behind them are reached from everywhere on this host, so that answers to them
find their way. What the other server's routes lead to is reached from this server's tunnel alone: the host itself may
have a network of the same addresses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from servers.hostnet.mesh import routes
from servers.hostnet.mesh.routes import Asking, families
from servers.hostnet.state import PREFIX

TABLE, PRIORITY = 51801, 32701  # asked right after the mesh's
# The table of wgs<number> is this plus the number, beyond those of the mesh.
TABLES, MOST, WAY_PRIORITY = 2_000_000_000, 1_000_000_000, 32689
WHAT = "the routes of links"

Rule = tuple[int, int, str]  # table, priority, interface that packets come from (empty: any)


@dataclass(frozen=True, slots=True)
class Ways:
    """What is routed to one device: from everywhere, and, by interface, what comes from there."""

    everyone: frozenset[str] = frozenset()
    ways: Mapping[str, frozenset[str]] = field(default_factory=dict)


def make_so(wanted: Mapping[int, Ways]) -> bool:
    """Route what ``wanted`` says, by the index of the device, and nothing else to these; whether anything was to be
    done. Raise ``LinkError``."""
    changed = False
    rules = {(TABLE, PRIORITY, "")} if wanted else set[Rule]()
    rules |= {(_table(name), WAY_PRIORITY, name) for each in wanted.values() for name in each.ways if _table(name)}
    tables = {table: name for table, _, name in rules | _rules()}
    for index, ways in wanted.items():
        for table, name in tables.items():
            mine: Collection[str] = ways.ways.get(name, frozenset()) if name else ways.everyone
            there = routes.read(index, table)
            if there != {*mine}:
                routes.change(index, sorted({*mine} - there), sorted(there - {*mine}), table)
                changed = True
    return _ask(rules) or changed


def forget() -> None:
    """Have none of it asked; the routes go with their devices. Raise ``LinkError``."""
    _ask(set())


def _table(interface: str) -> int:
    number = interface.removeprefix(PREFIX)
    return TABLES + int(number) if number.isdecimal() and int(number) < MOST else 0


def _ask(rules: set[Rule]) -> bool:
    """Have these tables asked, and no others of ours; whether anything was to be done."""
    done = False
    with Asking(WHAT) as netlink:
        for family in families():
            there = _of(netlink, family)
            for rule in rules - there:
                netlink.rule("add", **_rule(rule, family))
            for rule in there - rules:
                netlink.rule("del", **_rule(rule, family))
            done = done or rules != there
    return done


def _rule(rule: Rule, family: int) -> dict[str, Any]:
    table, priority, interface = rule
    return {"family": family, "table": table, "priority": priority, **({"iifname": interface} if interface else {})}


def _rules() -> set[Rule]:
    with Asking(WHAT) as netlink:
        return {rule for family in families() for rule in _of(netlink, family)}


def _of(netlink: Any, family: int) -> set[Rule]:
    found = set()
    for rule in netlink.get_rules(family=family):
        table, priority = rule.get_attr("FRA_TABLE"), rule.get_attr("FRA_PRIORITY")
        name = str(rule.get_attr("FRA_IIFNAME") or "")
        if (table, priority, name) == (TABLE, PRIORITY, "") or (priority == WAY_PRIORITY and table == _table(name)):
            found.add((int(table), int(priority), name))
    return found
