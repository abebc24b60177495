"""Links, addresses, routes and rules, by netlink.

How traffic is split, for each interface ``n``: two routing tables of ours and three rules above the main table.

1. not marked -> table A: the profile's networks, the whole-internet routes excepted
2. everything -> main, but not its default route (only where there is a whole-internet route): the LAN stays reachable
3. not marked -> table B: the whole-internet routes

WireGuard's own packets and our API requests carry the mark, so they go by the main table, outside every tunnel. The
other way, a host route to the server through the old gateway, goes stale with each change of network, and lets any
program's packets to that address out of the tunnel, so that a forged DNS answer for the server pulls out whatever it
wants. The mark follows the main table wherever that leads, and is only ours.

A ``throw`` route sends a network on to the next rule: it is how a network is kept outside.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from wgpeer.answers import Route
from wgpeer.constants import MAX_INTERFACES, RULE_PRIORITY, SOCKET_MARK, TABLE_BASE

FAMILIES = (socket.AF_INET, socket.AF_INET6)
MAIN = 254
INVERT = 2  # FIB_RULE_INVERT: "not"
THROW = 9  # RTN_THROW
UNICAST = 1  # RTN_UNICAST
NODAD = 2  # IFA_F_NODAD
SCOPE_LINK = 253
PREFIX = "wgp"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Split:
    """Where networks go. ``inside`` and ``everything`` through the tunnel, ``outside`` not."""

    inside: frozenset[Network]
    everything: frozenset[Network]
    outside: frozenset[Network]

    def tables(self, family: int, local: Iterable[Network]) -> tuple[dict[str, bool], dict[str, bool]]:
        """Tables A and B: network -> whether it is thrown on. ``local`` are the networks this machine is in: one that
        lies inside a network of the tunnel stays what it was, or a laptop would lose its own LAN."""
        version = 4 if family == socket.AF_INET else 6
        inside = [network for network in self.inside if network.version == version]
        near = [net for net in local if net.version == version and any(_within(net, wide) for wide in inside)]
        outside = [network for network in self.outside if network.version == version]
        first = {str(network): True for network in [*outside, *near]} | {str(network): False for network in inside}
        last = {str(network): False for network in self.everything if network.version == version}
        if last:
            last |= {str(network): True for network in outside}
        return (first if inside else {}), last

    @property
    def allowed_ips(self) -> tuple[str, ...]:
        return tuple(sorted(str(network) for network in self.inside | self.everything))


def split(routes: Iterable[Route], gateway: str, *, use_default_route: bool) -> Split:
    """Sort a configuration's routes; the gateway itself is always inside, because pings go there."""
    inside: set[Network] = {ipaddress.ip_network(gateway)}
    everything, outside = set[Network](), set[Network]()
    for route in routes:
        network = ipaddress.ip_network(route.network)
        if route.outside:
            outside.add(network)
        elif network.prefixlen > 0:
            inside.add(network)
        elif use_default_route:
            everything.add(network)
    return Split(frozenset(inside), frozenset(everything), frozenset(outside - inside))


def _within(small: Network, wide: Network) -> bool:
    return small.version == wide.version and small.prefixlen > wide.prefixlen and small[0] in wide


def number_of(interface: str) -> int:
    return int(interface.removeprefix(PREFIX))


def free_names() -> Iterable[str]:
    """Names that no link here has, lowest first."""
    taken = {name for _, name in socket.if_nameindex()}
    return (name for name in (f"{PREFIX}{number}" for number in range(MAX_INTERFACES)) if name not in taken)


def index_of(interface: str) -> int:
    """0 when there is no such link."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0


def delete_link(interface: str) -> None:
    if index := index_of(interface):
        with IPRoute() as route:
            _ignore_missing(partial(route.link, "del", index=index))


def set_link(interface: str, addresses: Iterable[str], mtu: int) -> None:
    """MTU, exactly these addresses, and up."""
    index = index_of(interface)
    with IPRoute() as route:
        route.link("set", index=index, mtu=mtu, state="up")
        parsed = [ipaddress.ip_interface(address) for address in addresses]
        wanted = {str(address) for address in parsed if address.version == 4 or has_ipv6(interface)}
        _add_addresses(route, index, wanted - _addresses(route, index))
        for address in _addresses(route, index) - wanted:
            _ignore_missing(partial(route.addr, "del", index=index, **_address(address)))
        # With the first address of a network the kernel may take its later ones away: add those once more.
        _add_addresses(route, index, wanted - _addresses(route, index))


def _addresses(route: IPRoute, index: int) -> set[str]:
    return {
        f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}"
        for message in route.get_addr(index=index)
        if message["scope"] != SCOPE_LINK
    }


def _add_addresses(route: IPRoute, index: int, addresses: Iterable[str]) -> None:
    for address in addresses:
        # No duplicate address detection: nobody else is on this link, and the first ping cannot wait for it.
        flags = {"flags": NODAD} if ":" in address else {}
        route.addr("add", index=index, **_address(address), **flags)


def _address(address: str) -> dict[str, Any]:
    parsed = ipaddress.ip_interface(address)
    return {"address": str(parsed.ip), "prefixlen": parsed.network.prefixlen}


def has_ipv6(interface: str) -> bool:
    """Whether the kernel gives this interface IPv6: it may be switched off, and an MTU below 1280 does that too."""
    path = Path("/proc/sys/net/ipv6/conf") / interface / "disable_ipv6"
    return path.exists() and path.read_text().strip() == "0"


def set_routes(interface: str, wanted: Split) -> None:
    """Make tables and rules as wanted: first add, then delete, so that nothing wanted is ever missing."""
    number, index = number_of(interface), index_of(interface)
    with IPRoute() as route:
        local = _local_networks(route, index)
        for family in FAMILIES if has_ipv6(interface) else FAMILIES[:1]:
            first, last = wanted.tables(family, local)
            _set_table(route, family, _table(number, 0), index, first)
            _set_table(route, family, _table(number, 1), index, last)
            _set_rules(route, family, number, first=bool(first), last=bool(last))


def clear_routes(number: int) -> None:
    """Take away rules and tables of an interface number, whether the interface is still there or not."""
    with IPRoute() as route:
        for family in FAMILIES:
            _set_rules(route, family, number, first=False, last=False)
            for which in (0, 1):
                _set_table(route, family, _table(number, which), 0, {})


def _table(number: int, which: int) -> int:
    return TABLE_BASE + 2 * number + which


def _local_networks(route: IPRoute, own_index: int) -> list[Network]:
    found = []
    for family in FAMILIES:
        for message in route.get_routes(table=MAIN, family=family):
            destination = message.get_attr("RTA_DST")
            direct = message.get_attr("RTA_GATEWAY") is None and message["type"] == UNICAST
            if destination and direct and message.get_attr("RTA_OIF") != own_index:
                found.append(ipaddress.ip_network(f"{destination}/{message['dst_len']}"))
    return [network for network in found if not network.is_link_local]


def _set_table(route: IPRoute, family: int, table: int, index: int, wanted: dict[str, bool]) -> None:
    have = {}
    for message in route.get_routes(table=table, family=family):
        nothing = "0.0.0.0" if family == socket.AF_INET else "::"  # noqa: S104  (a route's destination, not a bind)
        network = f"{message.get_attr('RTA_DST') or nothing}/{message['dst_len']}"
        have[network] = message["type"] == THROW
    for network, thrown in wanted.items():
        if have.get(network) != thrown:
            _change_route(route, "replace", family, table, index, network, thrown=thrown)
    for network, thrown in have.items():
        if network not in wanted:
            _ignore_missing(partial(_change_route, route, "del", family, table, index, network, thrown=thrown))


def _change_route(
    route: IPRoute, what: str, family: int, table: int, index: int, network: str, *, thrown: bool
) -> None:
    if thrown:
        route.route(what, family=family, dst=network, table=table, type="throw")
    elif index:
        route.route(what, family=family, dst=network, table=table, oif=index, scope=SCOPE_LINK)
    else:
        route.route(what, family=family, dst=network, table=table)


def _set_rules(route: IPRoute, family: int, number: int, *, first: bool, last: bool) -> None:
    wanted = {
        RULE_PRIORITY + number: first,
        RULE_PRIORITY + MAX_INTERFACES + number: last,
        RULE_PRIORITY + 2 * MAX_INTERFACES + number: last,
    }
    have = {message.get_attr("FRA_PRIORITY") for message in route.get_rules(family=family)}
    for step, (priority, needed) in enumerate(wanted.items()):
        if needed and priority not in have:
            route.rule("add", family=family, priority=priority, **_rule(number, step))
        elif priority in have and not needed:
            _ignore_missing(partial(route.rule, "del", family=family, priority=priority))


def _rule(number: int, step: int) -> dict[str, int]:
    if step == 1:
        return {"table": MAIN, "FRA_SUPPRESS_PREFIXLEN": 0}
    return {"table": _table(number, 0 if step == 0 else 1), "fwmark": SOCKET_MARK, "flags": INVERT}


def _ignore_missing(work: Callable[[], object]) -> None:
    """Run a deletion; what is gone already needs none (another may have been quicker, or the link took it along)."""
    try:
        work()
    except NetlinkError as error:
        if error.code not in (2, 3, 19, 99):  # ENOENT, ESRCH, ENODEV, EADDRNOTAVAIL
            raise
