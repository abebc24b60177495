"""Routes and rules, by netlink.

How traffic is split, for each interface ``n``: two routing tables of ours, three rules above the main table and one
below it.

1. not marked -> table A: the profile's networks, the whole-internet routes excepted
2. everything -> main, but not its default routes (only where there is a whole-internet route): the LAN stays reachable
3. not marked -> table B: the whole-internet routes
4. marked -> main, should its own rule have been deleted

WireGuard's own packets and our API requests carry the mark, so they go by the main table, outside every tunnel. The
other way, a host route to the server through the old gateway, goes stale with each change of network, and lets any
program's packets to that address out of the tunnel, so that a forged DNS response for the server pulls out whatever it
wants. The mark follows the main table wherever that leads, and is only ours.

A ``throw`` route sends a network on to the next rule: it is how a network is kept outside. Behind each whole-internet
route stands an ``unreachable`` one: should the interface vanish under us, its routes vanish with it, and what they
carried must come to nothing rather than leave by the old way. The same where the kernel gives the interface no IPv6.

Several tunnels of ours know of each other by these tables. The more specific route wins; of two for the same network,
that of the lower interface number.

A metric is the kernel's: a network that the main table has as well, with a lower metric than the server gave, stays
the main table's. The whole-internet routes are not compared: everything means everything.
"""

from __future__ import annotations

import ipaddress
import socket
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from wgpeer.constants import FALLBACK_PRIORITY, MAX_INTERFACES, RULE_PRIORITY, SOCKET_MARK, TABLE_BASE
from wgpeer.tunnel.link import (
    INTERFACE_PREFIX,
    SCOPE_LINK,
    has_ipv6,
    ignore_missing,
    interface_index,
    interface_number,
)
from wgpeer.tunnel.split_tunnel import (
    THROW,
    UNICAST,
    UNREACHABLE,
    WIDEST_DEFAULT,
    MainTable,
    Network,
    SplitTunnel,
    TableRoute,
)

FAMILIES = (socket.AF_INET, socket.AF_INET6)
MAIN_TABLE = 254
FALLBACK = 3  # the place of the fourth rule
FIB_RULE_INVERT = 2  # "not"
TO_TABLE = 1  # FR_ACT_TO_TBL
SCOPE_NOWHERE = 255  # in a deletion: whatever scope
NO_LIMIT = 0xFFFFFFFF  # how the kernel says that a rule suppresses nothing
KINDS = {UNREACHABLE: "unreachable", THROW: "throw"}

Tables = Mapping[int, tuple[set[TableRoute], set[TableRoute]]]  # A and B of each family


@dataclass(frozen=True, slots=True)
class Observed:
    """All routes and rules of this machine, as netlink messages: by family and table, and by family and priority."""

    routes: Mapping[tuple[int, int], list[Any]]
    rules: Mapping[tuple[int, int], list[Any]]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What this machine has beside one tunnel: its main table, and the networks (0.0.0.0/0 and ::/0 among them) that
    each other tunnel of ours carries, by interface number."""

    main: MainTable
    tunnels: Mapping[int, frozenset[Network]]


def observe() -> Observed:
    """Read all of it."""
    routes, rules = defaultdict[tuple[int, int], list[Any]](list), defaultdict[tuple[int, int], list[Any]](list)
    with IPRoute() as route:
        for family in _families():
            for message in route.get_routes(family=family):
                routes[family, message.get_attr("RTA_TABLE") or message["table"]].append(message)
            for message in route.get_rules(family=family):
                rules[family, message.get_attr("FRA_PRIORITY") or 0].append(message)
    return Observed(routes, rules)


def surroundings(interface: str, observed: Observed) -> Surroundings:
    """Of the tunnel of an interface."""
    names = {index: name for index, name in socket.if_nameindex() if name.startswith(INTERFACE_PREFIX)}
    main = _main_table(observed, interface_index(interface), names.keys())
    tunnels = defaultdict[int, frozenset[Network]](frozenset)
    for (_, table), messages in observed.routes.items():
        number = (table - TABLE_BASE) // 2
        if 0 <= number < MAX_INTERFACES and number != interface_number(interface):
            carried = {_network(message) for message in messages if message["type"] == UNICAST}
            tunnels[number] |= carried
    return Surroundings(main, tunnels)


def desired_tables(interface: str, split: SplitTunnel, around: Surroundings) -> Tables:
    """The tables of an interface as they should be now. While there is no such link, nothing leaves by them."""
    others = frozenset[Network]().union(*around.tunnels.values())
    tables = {}
    for family in _families():
        usable = bool(interface_index(interface)) and (family == socket.AF_INET or has_ipv6(interface))
        tables[family] = split.tables(family, around.main, usable=usable, others=others)
    return tables


def set_routes(interface: str, tables: Tables, observed: Observed) -> list[str]:
    """Make tables and rules as desired. It adds before it deletes, so that no desired route is ever missing. Returns
    what was not so, for people. Raises ``NetlinkError``."""
    number, index = interface_number(interface), interface_index(interface)
    changed = list[str]()
    with IPRoute() as route:
        for family, (first, last) in tables.items():
            for which, desired in enumerate((first, last)):
                table = _table(number, which)
                if _set_table(route, family, table, index, desired, observed.routes.get((family, table), [])):
                    changed.append("its routes")
            # The rules come last: from the first packet they send here, the tables are whole.
            if _set_rules(route, family, number, observed, first=bool(first), last=bool(last)):
                changed.append("its rules")
    return list(dict.fromkeys(changed))


def clear_routes(number: int) -> None:
    """Remove the rules and tables of an interface number, whether the interface is still there or not."""
    observed = observe()
    with IPRoute() as route:
        for family in _families():
            _set_rules(route, family, number, observed, first=False, last=False)
            for which in (0, 1):
                table = _table(number, which)
                _set_table(route, family, table, 0, set(), observed.routes.get((family, table), []))


def leaves_by(family: int, address: str) -> int:
    """The index of the interface by which an unmarked packet to ``address`` would leave now, 0 when by none."""
    with IPRoute() as route:
        try:
            (message,) = route.route("get", family=family, dst=address)
        except NetlinkError:
            return 0
    return int(message.get_attr("RTA_OIF") or 0) if message["type"] == UNICAST else 0


def _families() -> Iterable[int]:
    return FAMILIES if Path("/proc/net/if_inet6").exists() else FAMILIES[:1]


def _table(number: int, which: int) -> int:
    return TABLE_BASE + 2 * number + which


def _network(message: Any) -> Network:
    whole = "0.0.0.0" if message["family"] == socket.AF_INET else "::"  # noqa: S104  (a route's destination, no bind)
    return ipaddress.ip_network(f"{message.get_attr('RTA_DST') or whole}/{message['dst_len']}")


def _main_table(observed: Observed, own_index: int, tunnels: Iterable[int]) -> MainTable:
    connected, tunnelled, metrics = set[Network](), set[Network](), dict[Network, int]()
    for message in (message for family in FAMILIES for message in observed.routes.get((family, MAIN_TABLE), [])):
        device = message.get_attr("RTA_OIF")
        if not message["dst_len"] or message["type"] != UNICAST or device == own_index:
            continue
        network = _network(message)
        metric = message.get_attr("RTA_PRIORITY") or 0
        metrics[network] = min(metric, metrics.get(network, metric))
        far = message.get_attr("RTA_GATEWAY") or message.get_attr("RTA_VIA") or message.get_attr("RTA_MULTIPATH")
        if not far and not network.is_link_local:
            connected.add(network)
            tunnelled |= {network} if device in tunnels else set()
    return MainTable(frozenset(connected), metrics, frozenset(tunnelled))


def _set_table(
    route: IPRoute, family: int, table: int, index: int, desired: set[TableRoute], messages: list[Any]
) -> bool:
    observed = set[TableRoute]()
    for message in messages:
        entry = TableRoute(str(_network(message)), message["type"], message.get_attr("RTA_PRIORITY") or 0)
        # By another interface it is not the route that we want, and replacing it repairs that.
        if entry not in desired or entry.kind != UNICAST or message.get_attr("RTA_OIF") == index:
            observed.add(entry)
    # What keeps traffic from leaking comes first and goes last.
    for entry in sorted(desired - observed, key=lambda entry: entry.kind != UNREACHABLE):
        _change_route(route, "replace", family, table, index, entry)
    # What was replaced is gone. Its deletion would take another: where no metric is named, any metric is meant.
    kept = {(entry.network, entry.metric) for entry in desired}
    gone = [entry for entry in observed - desired if (entry.network, entry.metric) not in kept]
    for entry in sorted(gone, key=lambda entry: entry.kind == UNREACHABLE):
        ignore_missing(partial(_change_route, route, "del", family, table, index, entry))
    return observed != desired


def _change_route(route: IPRoute, what: str, family: int, table: int, index: int, entry: TableRoute) -> None:
    # A deletion names neither protocol nor scope: the route may be of another program.
    more: dict[str, Any] = {} if what == "replace" else {"proto": 0, "scope": SCOPE_NOWHERE}
    if entry.kind != UNICAST:
        more |= {"type": KINDS[entry.kind]}
    elif what == "replace":
        more = {"oif": index, "scope": SCOPE_LINK}
    if entry.metric:
        more["priority"] = entry.metric
    route.route(what, family=family, dst=entry.network, table=table, **more)


def _set_rules(route: IPRoute, family: int, number: int, observed: Observed, *, first: bool, last: bool) -> bool:
    changed = False
    for step, needed in enumerate((first, last, last, first or last)):
        priority = number + (FALLBACK_PRIORITY if step == FALLBACK else RULE_PRIORITY + step * MAX_INTERFACES)
        present = observed.rules.get((family, priority), [])
        desired = _rule(family, number, step)
        if needed == bool(present) and all(_is_rule(message, desired) for message in present) and len(present) < 2:
            continue
        changed = True
        for _ in present:
            ignore_missing(partial(route.rule, "del", family=family, priority=priority))
        if needed:
            route.rule("add", family=family, priority=priority, **desired)
    return changed


def _rule(family: int, number: int, step: int) -> dict[str, int]:
    if step == FALLBACK:
        return {"table": MAIN_TABLE, "fwmark": SOCKET_MARK}
    if step == 1:
        return {"table": MAIN_TABLE, "FRA_SUPPRESS_PREFIXLEN": WIDEST_DEFAULT[4 if family == socket.AF_INET else 6]}
    return {"table": _table(number, 0 if step == 0 else 1), "fwmark": SOCKET_MARK, "flags": FIB_RULE_INVERT}


def _is_rule(message: Any, desired: Mapping[str, int]) -> bool:
    """Whether a rule is the desired one, with no condition besides."""
    suppressed = message.get_attr("FRA_SUPPRESS_PREFIXLEN")
    limit = NO_LIMIT if suppressed is None else suppressed & NO_LIMIT
    others = ("FRA_IIFNAME", "FRA_OIFNAME", "FRA_IP_PROTO", "FRA_UID_RANGE", "FRA_SPORT_RANGE", "FRA_DPORT_RANGE")
    return (
        message["action"] == TO_TABLE
        and not message["src_len"]
        and not message["dst_len"]
        and not any(message.get_attr(name) for name in others)
        and (message.get_attr("FRA_TABLE") or message["table"]) == desired["table"]
        and (message.get_attr("FRA_FWMARK") or 0) == desired.get("fwmark", 0)
        and bool(message["flags"] & FIB_RULE_INVERT) == bool(desired.get("flags"))
        and limit == desired.get("FRA_SUPPRESS_PREFIXLEN", NO_LIMIT)
    )
