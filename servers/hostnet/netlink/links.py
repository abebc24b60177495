"""Links, addresses and routes of our interfaces by netlink, and forwarding by sysctl. WireGuard itself is not here."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from servers.hostnet.marks import GROUP
from servers.hostnet.observed import USUAL_MTU, HostRoute, Observed, ObservedLink
from servers.hostnet.state import OUR_INTERFACE
from servers.hostnet.state.host_networks import HostNetwork, Kind, surrounds
from servers.hostnet.wireguard.base import Device

SYSCTL = Path("/proc/sys/net")
IFF_UP = 0x1
IFA_F_NODAD = 0x02  # a tunnel has no neighbours to collide with, and an address on probation cannot be used
RT_SCOPE_LINK = 253
RT_TABLE_MAIN = 254
RTN_UNICAST = 1
NO_WAYS = {2, 3, 4, 5}  # kinds of routes that are no way anywhere: local, broadcast, anycast, multicast
PROTOCOL = 158  # marks our routes, so that all others are left alone; nothing in rt_protos has it
FAMILIES: dict[int, int] = {4: socket.AF_INET, 6: socket.AF_INET6}
EVERYWHERE = {socket.AF_INET: "0.0.0.0/0", socket.AF_INET6: "::/0"}


class LinkError(Exception):
    """The kernel refused a change of a link, an address or a sysctl, or the link is not there."""


class Links:
    """The kernel's view of interfaces named ``wgs<number>``; all others are neither read nor touched."""

    def read(self) -> dict[str, ObservedLink]:
        """Every link of ours by name, with its addresses (IPv6 link-local ones, which the kernel adds, left out)."""
        return dict(self.observe({}).links)

    def observe(self, devices: Mapping[str, Device]) -> Observed:
        """All that the kernel has of links, addresses and routes, to ``devices`` as WireGuard has them."""
        # Strict: the kernel leaves out routes of other tables, of which the mesh's may have thousands.
        with _netlink(strict_check=True) as netlink:
            links = {int(link["index"]): link for link in netlink.get_links()}
            names = {index: _name(link) for index, link in links.items()}
            mine = {index for index, name in names.items() if OUR_INTERFACE.fullmatch(name)}
            addresses = _addresses(netlink)
            routes = _routes(netlink)
        ours: defaultdict[int, set[str]] = defaultdict(set)
        others = []
        for route in routes:
            if route.protocol == PROTOCOL and route.ways[0] in mine:
                ours[route.ways[0]].add(route.network)
            else:
                others.append(route)
        observed = {
            names[index]: ObservedLink(
                bool(links[index]["flags"] & IFF_UP),
                _mtu(links[index]),
                frozenset(addresses[index]),
                frozenset(ours[index]),
                int(links[index].get_attr("IFLA_GROUP") or 0),
            )
            for index in mine
        }
        host_routes = tuple(HostRoute(r.network, names.get(way, ""), r.attached) for r in others for way in r.ways)
        ways_out = {way for r in others if r.passes and r.network in EVERYWHERE.values() for way in r.ways} - mine
        outer_mtu = min((_mtu(links[way]) for way in ways_out if way in links), default=USUAL_MTU)
        return Observed(devices, observed, host_routes, outer_mtu, tuple(sorted(_own(names, addresses, others))))

    def bring_up(self, name: str, mtu: int) -> None:
        with _netlink() as netlink:
            netlink.link("set", index=_index(netlink, name), mtu=mtu, group=GROUP, state="up")

    def add_address(self, name: str, address: str) -> None:
        self._address("replace", name, address)

    def remove_address(self, name: str, address: str) -> None:
        # Else the kernel removes with an address every later one of the same network, its successor for instance.
        _write(SYSCTL / "ipv4/conf" / name / "promote_secondaries", "1")
        self._address("del", name, address)

    def _address(self, verb: str, name: str, address: str) -> None:
        interface = ipaddress.ip_interface(address)
        kind: dict[str, int] = {"family": socket.AF_INET if interface.version == 4 else socket.AF_INET6}
        if interface.version == 6 and verb != "del":
            kind["flags"] = IFA_F_NODAD
        with _netlink() as netlink:
            index = _index(netlink, name)
            netlink.addr(verb, index=index, address=str(interface.ip), prefixlen=interface.network.prefixlen, **kind)

    def add_route(self, name: str, network: str) -> None:
        """Route ``network`` to the link; no error where it is so. Never in the place of another route."""
        with _netlink() as netlink:
            index = _index(netlink, name)
            try:
                netlink.route("add", **_route(network), oif=index)
            except NetlinkError as error:
                if error.code != errno.EEXIST:
                    raise
                if not any(r.network == network and r.ways[0] == index for r in _routes(netlink)):
                    raise LinkError(f"{name}: the host has another route to {network}") from None

    def remove_route(self, name: str, network: str) -> None:
        """Take back what ``add_route`` made; no error where it is gone already."""
        with _netlink() as netlink:
            try:
                netlink.route("del", **_route(network), oif=_index(netlink, name))
            except NetlinkError as error:
                if error.code != errno.ESRCH:
                    raise

    def delete(self, name: str) -> None:
        """Remove the link, whatever kind it is; no error if it is gone already."""
        with _netlink() as netlink:
            for index in netlink.link_lookup(ifname=name):
                netlink.link("del", index=index)

    def forward(self, *, ipv6: bool) -> None:
        """Let the host route IPv4, and IPv6 where asked; written only where it is not so."""
        _write(SYSCTL / "ipv4/ip_forward", "1")
        if not ipv6:
            return
        # A kernel that routes IPv6 stops listening to router advertisements, which may be where its own default route
        # comes from. 2 means: listen although routing.
        for setting in (SYSCTL / "ipv6/conf").glob("*/accept_ra"):
            if setting.read_text().strip() == "1":
                _write(setting, "2")
        _write(SYSCTL / "ipv6/conf/all/forwarding", "1")


@dataclass(frozen=True, slots=True)
class _Route:
    """A route of the main table. ``ways`` are indices of links, several where it is spread; 0: none. Without
    ``passes`` it lets nothing through: a blackhole and the like. ``routers`` are the next hops, as many as there are
    ways."""

    network: str
    protocol: int
    ways: tuple[int, ...]
    attached: bool
    passes: bool
    routers: tuple[str, ...]


def _routes(netlink: IPRoute) -> list[_Route]:
    found = []
    for family, everywhere in EVERYWHERE.items():
        for message in netlink.get_routes(family=family, table=RT_TABLE_MAIN):
            if message["type"] in NO_WAYS:
                continue
            network = f"{message.get_attr('RTA_DST')}/{message['dst_len']}" if message["dst_len"] else everywhere
            several = message.get_attr("RTA_MULTIPATH") or []
            hops = several or [message]
            ways = tuple(int(way["oif"]) for way in several) or (int(message.get_attr("RTA_OIF") or 0),)
            passes = message["type"] == RTN_UNICAST
            routers = tuple(_router(hop) for hop in hops)
            attached = passes and message["dst_len"] > 0 and not several and not routers[0]
            found.append(_Route(network, int(message["proto"]), ways, attached, passes, routers))
    return found


def _router(hop: Any) -> str:
    """The next hop's address; empty where there is none in between."""
    via = hop.get_attr("RTA_VIA") or {}
    return str(hop.get_attr("RTA_GATEWAY") or via.get("addr") or via.get("address") or "")


def _own(
    names: Mapping[int, str], addresses: Mapping[int, Set[str]], routes: Iterable[_Route]
) -> Iterator[HostNetwork]:
    """What the host has of networks besides our tunnels."""
    for index, texts in addresses.items():
        for text in texts:
            yield from _surrounding(Kind.ADDRESS, text.partition("/")[0], names.get(index, ""))
    for route in routes:
        for way, router in zip(route.ways, route.routers, strict=True):
            if route.attached:
                yield from _surrounding(Kind.ATTACHED, route.network, names.get(way, ""))
            elif router and route.network in EVERYWHERE.values():
                yield from _surrounding(Kind.ROUTER, router, names.get(way, ""))


def _surrounding(kind: Kind, text: str, link: str) -> Iterator[HostNetwork]:
    network = str(ipaddress.ip_network(text))
    if link and surrounds(network, link):
        yield HostNetwork(kind, network, link)


def _addresses(netlink: IPRoute) -> defaultdict[int, set[str]]:
    """By link, of all of them."""
    found: defaultdict[int, set[str]] = defaultdict(set)
    for message in netlink.get_addr():
        if message["scope"] != RT_SCOPE_LINK:
            address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            found[message["index"]].add(str(ipaddress.ip_interface(f"{address}/{message['prefixlen']}")))
    return found


def _mtu(link: Any) -> int:
    return int(link.get_attr("IFLA_MTU") or USUAL_MTU)


def _route(network: str) -> dict[str, Any]:
    family = FAMILIES[ipaddress.ip_network(network).version]
    # Scope "link": there is no router in between. IPv6 has no scopes of routes.
    scope = {"scope": RT_SCOPE_LINK} if family == socket.AF_INET else {}
    return {"dst": network, "family": family, "proto": PROTOCOL, "table": RT_TABLE_MAIN, **scope}


def _name(link: Any) -> str:
    return str(link.get_attr("IFLA_IFNAME") or "")


def _index(netlink: IPRoute, name: str) -> int:
    found = netlink.link_lookup(ifname=name)
    if not found:
        raise LinkError(f"{name}: no such link")
    return int(found[0])


@contextmanager
def _netlink(**options: bool) -> Iterator[IPRoute]:
    try:
        with IPRoute(**options) as netlink:
            yield netlink
    except (NetlinkError, OSError) as error:
        raise LinkError(f"netlink: {error}") from error


def _write(path: Path, value: str) -> None:
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except OSError as error:
        raise LinkError(f"{path.name}: {error.strerror}") from error
