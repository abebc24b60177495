"""The sets and maps of our nftables table, as text. Each is one look-up, however much is in it. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Sequence

from servers.hostnet.state import MESH_PREFIX, PREFIX

from .port_forwards import written
from .route_policy import Tunnel

TUNNELS, MESH = f'"{PREFIX}*"', f'"{MESH_PREFIX}*"'
ANSWERS = "ct direction reply ct state established,related"
FAMILY = {4: "ip", 6: "ip6"}
NFPROTO = {4: "ipv4", 6: "ipv6"}
SET_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}


def common_sets(version: int, tunnels: Iterable[Tunnel], filled: dict[str, list[str]]) -> Iterator[str]:
    """What servers share; ``filled`` are the elements that follow the peers, by set."""
    address = SET_TYPE[version]
    gateways = {written(each.ip) for tunnel in tunnels for each in tunnel.gateways if each.version == version}
    types = {
        f"map forwards{version}": f"inet_proto . inet_service : {address} . inet_service",
        f"set targets{version}": f"{address} . inet_proto . inet_service",
        f"set gateways{version}": address,
        f"set ended{version}": f"ifname . {address}",
    }
    for title, type_ in types.items():
        elements = sorted(gateways) if "gateways" in title else filled.get(title.split()[1], [])
        yield from _set(title, [f"type {type_}"], elements)


def forwarded(version: int, side: str, direction: str) -> str:
    """Connections to forwarded ports, and what comes back. ``ct status dnat``: not what merely goes to such a port."""
    port = f"{FAMILY[version]} {side}addr . meta l4proto . th {side}port @targets{version}"
    return f"ct status dnat ct direction {direction} {port} accept"


def sets_of(tunnel: Tunnel, version: int) -> Iterator[str]:
    """What the routes of one server say: see ``RoutePolicy``."""
    policy, written_as = tunnel.policy[version], _range_writer(version)
    intervals = {f"routes{version}": policy.routes, f"plain{version}": policy.plain, f"given{version}": policy.given}
    if policy.netmap:
        intervals |= {f"virtual{version}": policy.virtual, f"real{version}": policy.real, f"open{version}": policy.open}
    intervals |= {nat_set(version, index): policy.nat[interface] for index, interface in policy.nat_interfaces()}
    for name, each in intervals.items():
        body = [f"type {SET_TYPE[version]}", "flags interval"]
        yield from _set(f"set {tunnel.name}_{name}", body, [written_as(*interval) for interval in each])
    for name, pairs in (("netmap", policy.netmap), ("unmap", policy.unmap)):
        if pairs:
            body = [f"type {SET_TYPE[version]} : interval {SET_TYPE[version]}", "flags interval"]
            elements = [f"{here} : {there}" for here, there in pairs]
            yield from _set(f"map {tunnel.name}_{name}{version}", body, elements)


def nat_set(version: int, index: int) -> str:
    """The set of what is reached with NAT; the name of an interface is no part of it, since not every one could be."""
    return f"nat{version}_{index}" if index else f"nat{version}"


def _set(title: str, body: list[str], elements: Sequence[str]) -> list[str]:
    filled = [f"elements = {{ {', '.join(elements)} }}"] if elements else []
    return [f"{title} {{", *indented([*body, *filled]), "}"]


def _range_writer(version: int) -> Callable[[int, int], str]:
    address = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    return lambda first, last: f"{address(first)}-{address(last)}"


def anonymous(networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> str:
    """A set for one rule, without overlaps, which nftables refuses."""
    whole: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    for network in sorted({*networks}, key=lambda each: (each.prefixlen, int(each.network_address))):
        if not any(network.overlaps(other) for other in whole):
            whole.append(network)
    return f"{{ {', '.join(map(str, whole))} }}"


def indented(lines: Iterable[str]) -> list[str]:
    return ["\t" + line for line in lines]
