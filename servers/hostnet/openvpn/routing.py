"""What is routed into links, in tables of their own, as with the mesh.

Clients at the other end and the networks behind them are reached from everywhere on this host, so that answers to them
find their way. What the other server's routes lead to is reached from this server's tunnel alone, and by the mesh from
its clients on other machines: the host itself may have a network of the same addresses.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from servers.hostnet.mesh import routes
from servers.hostnet.mesh.routes import Asking, families
from servers.hostnet.state import MESH_INTERFACE, PREFIX

TABLE, PRIORITY = 51801, 32701  # asked right after the mesh's
# The table of wgs<number> is this plus the number, beyond those of the mesh.
TABLES, MOST, WAY_PRIORITY = 2_000_000_000, 1_000_000_000, 32689
WHAT = "the routes of links"

Rule = tuple[int, int, str, str]  # table, priority, interface and network that packets come from (empty: any)


@dataclass(frozen=True, slots=True)
class Ways:
    """What is routed to one device: from everywhere, and, by interface, what comes from there. ``by_mesh``: by
    interface, the networks of those who may be on other machines, and then come by the mesh."""

    everyone: frozenset[str] = frozenset()
    ways: Mapping[str, frozenset[str]] = field(default_factory=dict)
    by_mesh: Mapping[str, frozenset[str]] = field(default_factory=dict)


def make_so(wanted: Mapping[int, Ways]) -> bool:
    """Route what ``wanted`` says, by the index of the device, and nothing else to these; whether anything was to be
    done. Raise ``LinkError``."""
    changed = False
    rules = {(TABLE, PRIORITY, "", "")} if wanted else set[Rule]()
    rules |= {rule for ways in wanted.values() for name in ways.ways if _table(name) for rule in _asked(name, ways)}
    tables = {table: _interface(table) for table, *_ in rules | _rules()}
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


def _asked(name: str, ways: Ways) -> Iterator[Rule]:
    yield _table(name), WAY_PRIORITY, name, ""
    for network in ways.by_mesh.get(name, ()):
        yield _table(name), WAY_PRIORITY, MESH_INTERFACE, network


def _interface(table: int) -> str:
    return "" if table == TABLE else f"{PREFIX}{table - TABLES}"


def _table(interface: str) -> int:
    number = interface.removeprefix(PREFIX)
    return TABLES + int(number) if number.isdecimal() and int(number) < MOST else 0


def _ask(rules: set[Rule]) -> bool:
    """Have these tables asked, and no others of ours; whether anything was to be done."""
    done = False
    with Asking(WHAT) as netlink:
        for family in families():
            there = _of(netlink, family)
            wanted = {rule for rule in rules if not rule[3] or (":" in rule[3]) == (family == socket.AF_INET6)}
            for rule in wanted - there:
                netlink.rule("add", **_rule(rule, family))
            for rule in there - wanted:
                netlink.rule("del", **_rule(rule, family))
            done = done or wanted != there
    return done


def _rule(rule: Rule, family: int) -> dict[str, Any]:
    table, priority, interface, network = rule
    found: dict[str, Any] = {"family": family, "table": table, "priority": priority}
    if interface:
        found["iifname"] = interface
    if network:
        address, _, length = network.partition("/")
        found |= {"src": address, "src_len": int(length)}
    return found


def _rules() -> set[Rule]:
    with Asking(WHAT) as netlink:
        return {rule for family in families() for rule in _of(netlink, family)}


def _of(netlink: Any, family: int) -> set[Rule]:
    found = set()
    for rule in netlink.get_rules(family=family):
        table, priority = rule.get_attr("FRA_TABLE"), rule.get_attr("FRA_PRIORITY")
        name, source = str(rule.get_attr("FRA_IIFNAME") or ""), rule.get_attr("FRA_SRC")
        network = f"{source}/{rule['src_len']}" if source else ""
        mine = _table(name) if name != MESH_INTERFACE else _table(_interface(int(table)))
        if (table, priority, name) == (TABLE, PRIORITY, "") or (priority == WAY_PRIORITY and table == mine):
            found.add((int(table), int(priority), name, network))
    return found
