"""Links, addresses, routes and rules, by netlink.

How traffic is split, for each interface ``n``: two routing tables of ours and three rules above the main table.

1. not marked -> table A: the profile's networks, the whole-internet routes excepted
2. everything -> main, but not its default route (only where there is a whole-internet route): the LAN stays reachable
3. not marked -> table B: the whole-internet routes

WireGuard's own packets and our API requests carry the mark, so they go by the main table, outside every tunnel. The
other way, a host route to the server through the old gateway, goes stale with each change of network, and lets any
program's packets to that address out of the tunnel, so that a forged DNS response for the server pulls out whatever it
wants. The mark follows the main table wherever that leads, and is only ours.

A ``throw`` route sends a network on to the next rule: it is how a network is kept outside. Behind each whole-internet
route stands an ``unreachable`` one: should the interface vanish under us, its routes vanish with it, and what they
carried must come to nothing rather than leave by the old way. The same where the kernel gives the interface no IPv6.

A metric is the kernel's: a network that the main table has as well, with a lower metric than the server gave, stays
the main table's. The whole-internet routes are not compared: everything means everything.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from wgpeer.constants import MAX_INTERFACES, RULE_PRIORITY, SOCKET_MARK, TABLE_BASE
from wgpeer.tunnel.split_tunnel import THROW, UNICAST, UNREACHABLE, MainTable, Network, SplitTunnel, TableRoute

FAMILIES = (socket.AF_INET, socket.AF_INET6)
MAIN_TABLE = 254
FIB_RULE_INVERT = 2  # "not"
KINDS = {UNREACHABLE: "unreachable", THROW: "throw"}
IFA_F_NODAD = 2
SCOPE_LINK = 253
INTERFACE_PREFIX = "wgp"
DISCARD_PORT = 9  # the port of the service that answers nothing


def interface_number(interface: str) -> int:
    """The number in the name of an interface of ours."""
    return int(interface.removeprefix(INTERFACE_PREFIX))


def free_names() -> Iterable[str]:
    """Names that no link in this namespace has, lowest number first."""
    taken = {name for _, name in socket.if_nameindex()}
    return (name for name in (f"{INTERFACE_PREFIX}{number}" for number in range(MAX_INTERFACES)) if name not in taken)


def interface_index(interface: str) -> int:
    """The index of a link, 0 when there is none of that name."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0


def delete_link(interface: str) -> None:
    """Delete a link. No error when there is none."""
    if index := interface_index(interface):
        with IPRoute() as route:
            _ignore_missing(partial(route.link, "del", index=index))


def configure_link(interface: str, addresses: Iterable[str], mtu: int) -> None:
    """Set the link up with this MTU (bytes) and exactly these addresses (with prefix length). Raises
    ``NetlinkError``."""
    index = interface_index(interface)
    with IPRoute() as route:
        route.link("set", index=index, mtu=mtu, state="up")
        parsed = [ipaddress.ip_interface(address) for address in addresses]
        desired = {str(address) for address in parsed if address.version == 4 or has_ipv6(interface)}
        _add_addresses(route, index, desired - _addresses(route, index))
        for address in _addresses(route, index) - desired:
            _ignore_missing(partial(route.addr, "del", index=index, **_address(address)))
        # With the first address of a network the kernel may take its later ones away: add those once more.
        _add_addresses(route, index, desired - _addresses(route, index))


def _addresses(route: IPRoute, index: int) -> set[str]:
    return {
        f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}"
        for message in route.get_addr(index=index)
        if message["scope"] != SCOPE_LINK
    }


def _add_addresses(route: IPRoute, index: int, addresses: Iterable[str]) -> None:
    for address in addresses:
        # No duplicate address detection: nobody else is on this link, and the first ping cannot wait for it.
        flags = {"flags": IFA_F_NODAD} if ":" in address else {}
        route.addr("add", index=index, **_address(address), **flags)


def _address(address: str) -> dict[str, Any]:
    parsed = ipaddress.ip_interface(address)
    return {"address": str(parsed.ip), "prefixlen": parsed.network.prefixlen}


def has_ipv6(interface: str) -> bool:
    """Whether the kernel gives this interface IPv6. It may be switched off, and an MTU below 1280 does that too."""
    path = Path("/proc/sys/net/ipv6/conf") / interface / "disable_ipv6"
    return path.exists() and path.read_text().strip() == "0"


def trigger_handshake(interface: str, address: str) -> None:
    """Send one packet to ``address`` through the interface: WireGuard begins a handshake only when it has something to
    send. Nobody answers it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as packet, contextlib.suppress(OSError):
        packet.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        packet.sendto(b"", (address, DISCARD_PORT))


def set_routes(interface: str, desired: SplitTunnel) -> None:
    """Make tables and rules as desired. It adds before it deletes, so that no desired route is ever missing. Raises
    ``NetlinkError``."""
    number, index = interface_number(interface), interface_index(interface)
    with IPRoute() as route:
        main = _main_table(route, index)
        for family in _families():
            usable = family == socket.AF_INET or has_ipv6(interface)
            first, last = desired.tables(family, main, usable=usable)
            _set_table(route, family, _table(number, 0), index, first)
            _set_table(route, family, _table(number, 1), index, last)
            # The rules come last: from the first packet they send here, the tables are whole.
            _set_rules(route, family, number, first=bool(first), last=bool(last))


def clear_routes(number: int) -> None:
    """Remove the rules and tables of an interface number, whether the interface is still there or not."""
    with IPRoute() as route:
        for family in _families():
            _set_rules(route, family, number, first=False, last=False)
            for which in (0, 1):
                _set_table(route, family, _table(number, which), 0, set())


def _families() -> Iterable[int]:
    return FAMILIES if Path("/proc/net/if_inet6").exists() else FAMILIES[:1]


def _table(number: int, which: int) -> int:
    return TABLE_BASE + 2 * number + which


def _main_table(route: IPRoute, own_index: int) -> MainTable:
    connected, metrics = set[Network](), dict[Network, int]()
    for family in FAMILIES:
        for message in route.get_routes(table=MAIN_TABLE, family=family):
            destination = message.get_attr("RTA_DST")
            if not destination or message["type"] != UNICAST or message.get_attr("RTA_OIF") == own_index:
                continue
            network = ipaddress.ip_network(f"{destination}/{message['dst_len']}")
            metric = message.get_attr("RTA_PRIORITY") or 0
            metrics[network] = min(metric, metrics.get(network, metric))
            far = message.get_attr("RTA_GATEWAY") or message.get_attr("RTA_VIA") or message.get_attr("RTA_MULTIPATH")
            if not far and not network.is_link_local:
                connected.add(network)
    return MainTable(frozenset(connected), metrics)


def _set_table(route: IPRoute, family: int, table: int, index: int, desired: set[TableRoute]) -> None:
    nothing = "0.0.0.0" if family == socket.AF_INET else "::"  # noqa: S104  (a route's destination, not a bind)
    observed = {
        TableRoute(
            f"{message.get_attr('RTA_DST') or nothing}/{message['dst_len']}",
            message["type"],
            message.get_attr("RTA_PRIORITY") or 0,
        )
        for message in route.get_routes(table=table, family=family)
    }
    # What keeps traffic from leaking comes first and goes last.
    for entry in sorted(desired - observed, key=lambda entry: entry.kind != UNREACHABLE):
        _change_route(route, "replace", family, table, index, entry)
    for entry in sorted(observed - desired, key=lambda entry: entry.kind == UNREACHABLE):
        _ignore_missing(partial(_change_route, route, "del", family, table, index, entry))


def _change_route(route: IPRoute, what: str, family: int, table: int, index: int, entry: TableRoute) -> None:
    more: dict[str, Any] = {}
    if entry.kind != UNICAST:
        more = {"type": KINDS[entry.kind]}
    elif index:
        more = {"oif": index, "scope": SCOPE_LINK}
    if entry.metric:
        more["priority"] = entry.metric
    route.route(what, family=family, dst=entry.network, table=table, **more)


def _set_rules(route: IPRoute, family: int, number: int, *, first: bool, last: bool) -> None:
    desired = {
        RULE_PRIORITY + number: first,
        RULE_PRIORITY + MAX_INTERFACES + number: last,
        RULE_PRIORITY + 2 * MAX_INTERFACES + number: last,
    }
    observed = {message.get_attr("FRA_PRIORITY") for message in route.get_rules(family=family)}
    for step, (priority, needed) in enumerate(desired.items()):
        if needed and priority not in observed:
            route.rule("add", family=family, priority=priority, **_rule(number, step))
        elif priority in observed and not needed:
            _ignore_missing(partial(route.rule, "del", family=family, priority=priority))


def _rule(number: int, step: int) -> dict[str, int]:
    if step == 1:
        return {"table": MAIN_TABLE, "FRA_SUPPRESS_PREFIXLEN": 0}
    return {"table": _table(number, 0 if step == 0 else 1), "fwmark": SOCKET_MARK, "flags": FIB_RULE_INVERT}


def _ignore_missing(work: Callable[[], object]) -> None:
    """Run a deletion. No error when the thing is gone already: its link took it along, or another was quicker."""
    try:
        work()
    except NetlinkError as error:
        if error.code not in (2, 3, 19, 99):  # ENOENT, ESRCH, ENODEV, EADDRNOTAVAIL
            raise
