"""Routing rules and the table of WireGuard's own packets, by netlink."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from servers.hostnet.marks import GROUP, MARK, TABLE
from servers.hostnet.netlink.links import EVERYWHERE, NO_WAYS, PROTOCOL, RT_TABLE_MAIN, RTN_UNICAST, LinkError
from servers.hostnet.state import OUR_INTERFACE

from .ways import Way

ONLINK = (
    0x4  # RTNH_F_ONLINK: the router is on that link, without looking that up in a table that lacks the link's route
)
ALL_BITS = 0xFFFFFFFF
# After the rules of an administrator, who may send packets of one address by one way and not another; before main.
FIRST, SECOND = 32760, 32761


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    """``avoids``: a route that this table gives is not taken where it leads to a link of that group."""

    family: int
    priority: int
    mark: int
    mask: int
    table: int
    avoids: int = 0


# The main table as it is now serves nearly every packet. Its answer is not taken where it is a tunnel of ours.
RULES = frozenset(
    rule
    for family in EVERYWHERE
    for rule in (
        Rule(family, FIRST, MARK, ALL_BITS, RT_TABLE_MAIN, GROUP),
        Rule(family, SECOND, MARK, ALL_BITS, TABLE),
    )
)


@contextlib.contextmanager
def netlink() -> Iterator[Any]:
    """Raise ``LinkError``."""
    try:
        with IPRoute() as opened:
            yield opened
    except (NetlinkError, OSError) as error:
        raise LinkError(f"routing rules: {error}") from error


def read_rules(opened: Any) -> frozenset[Rule]:
    """Those of our making."""
    found = set()
    for family in EVERYWHERE:
        for message in _dumped(opened.get_rules, family):
            if message.get_attr("FRA_PROTOCOL") != PROTOCOL:
                continue
            names = ("FRA_PRIORITY", "FRA_FWMARK", "FRA_FWMASK", "FRA_TABLE", "FRA_SUPPRESS_IFGROUP")
            found.add(Rule(family, *(int(message.get_attr(name) or 0) for name in names)))
    return frozenset(found)


def change_rule(opened: Any, verb: str, rule: Rule) -> None:
    avoids = {"FRA_SUPPRESS_IFGROUP": rule.avoids} if rule.avoids else {}
    opened.rule(
        verb,
        family=rule.family,
        priority=rule.priority,
        table=rule.table,
        fwmark=rule.mark,
        fwmask=rule.mask,
        protocol=PROTOCOL,
        **avoids,
    )


def read_host(opened: Any) -> frozenset[Way]:
    """The ways of the main table, but for those into tunnels of ours."""
    names = {int(link["index"]): str(link.get_attr("IFLA_IFNAME") or "") for link in opened.get_links()}
    mine = {index for index, name in names.items() if OUR_INTERFACE.fullmatch(name)}
    return frozenset(way for way in _ways(opened, RT_TABLE_MAIN) if not mine & {link for link, _ in way.hops})


def read_table(opened: Any) -> frozenset[Way]:
    return frozenset(_ways(opened, TABLE))


def change_way(opened: Any, verb: str, way: Way) -> None:
    """``add`` or ``del``; no error where it is so already, or where its link has gone."""
    route: dict[str, Any] = {"dst": way.network, "family": way.family, "priority": way.metric, "type": way.kind}
    if way.source:
        route["prefsrc"] = way.source
    if len(way.hops) > 1:
        route["multipath"] = [_hop(way.family, *hop) for hop in way.hops]
    elif way.hops:
        route |= _hop(way.family, *way.hops[0])
    if way.family == socket.AF_INET and all(not router for _, router in way.hops):
        route["scope"] = 253  # "link": no router in between
    try:
        opened.route(verb, table=TABLE, proto=PROTOCOL, **route)
    except NetlinkError as error:
        if error.code not in {errno.EEXIST, errno.ESRCH, errno.ENODEV, errno.ENETDOWN}:
            raise


def _hop(family: int, link: int, router: str) -> dict[str, Any]:
    if not router:
        return {"oif": link}
    if family == socket.AF_INET and ":" in router:
        return {"oif": link, "via": {"family": socket.AF_INET6, "addr": router}, "flags": ONLINK}
    return {"oif": link, "gateway": router, "flags": ONLINK}


def _ways(opened: Any, table: int) -> Iterator[Way]:
    for family, everywhere in EVERYWHERE.items():
        for message in _dumped(lambda family: opened.get_routes(family=family, table=table), family):
            kind = int(message["type"])
            if kind in NO_WAYS:
                continue
            network = f"{message.get_attr('RTA_DST')}/{message['dst_len']}" if message["dst_len"] else everywhere
            if network.startswith("fe80:"):
                continue
            hops = tuple(_read_hops(message)) if kind == RTN_UNICAST else ()
            source = str(message.get_attr("RTA_PREFSRC") or "")
            yield Way(family, network, int(message.get_attr("RTA_PRIORITY") or 0), kind, hops, source)


def _read_hops(message: Any) -> Iterator[tuple[int, str]]:
    several = message.get_attr("RTA_MULTIPATH") or []
    for hop in several or [message]:
        via = hop.get_attr("RTA_VIA") or {}
        link = hop["oif"] if several else message.get_attr("RTA_OIF")
        yield int(link or 0), str(hop.get_attr("RTA_GATEWAY") or via.get("addr") or "")


def _dumped(dump: Any, family: int) -> Iterable[Any]:
    """Of a family that this kernel does not have, nothing."""
    try:
        return list(dump(family))
    except NetlinkError as error:
        if error.code in {errno.EAFNOSUPPORT, errno.EOPNOTSUPP}:
            return []
        raise
