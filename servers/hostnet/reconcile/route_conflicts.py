"""Which networks are routed into tunnels, and which must not be because the host itself has them. Pure."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Collection, Iterable, Mapping

from servers.hostnet.observed import HostRoute
from servers.hostnet.state import Interface, Peer

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Conflicts = Mapping[tuple[str, str], str]


def networks_of(interface: Interface) -> frozenset[str]:
    """The networks behind the peers of ``interface``."""
    return frozenset(network for peer in interface.peers for network in peer.networks)


def conflicts(interfaces: Iterable[Interface], host_routes: Iterable[HostRoute]) -> Conflicts:
    """By interface and network, in words, each network that is not routed there, so that it hides no other one.

    A route of ours must not take the place of one that the host has, nor cut a piece out of a network that the host is
    on. Of two servers that have the same network, the first one gets it.
    """
    found: dict[tuple[str, str], str] = {}
    owners: dict[str, str] = {}
    routes: list[tuple[Network, HostRoute]] | None = None
    for interface in sorted(interfaces, key=lambda interface: interface.name):
        for network in sorted(networks_of(interface)):
            if routes is None:  # most hosts need none of them
                routes = [(ipaddress.ip_network(route.network), route) for route in host_routes]
            message = _refused(interface.name, ipaddress.ip_network(network), routes)
            owner = owners.setdefault(network, interface.name)
            if not message and owner != interface.name:
                message = f"it is routed to {owner}"
            if message:
                found[interface.name, network] = f"{interface.name}: {network} is not routed to its client: {message}"
    return found


def free_of_conflict(interface: Interface, behind: Collection[str], host_routes: Iterable[HostRoute]) -> set[str]:
    """Those of ``behind``, networks behind peers of ``interface``, that the host has not itself."""
    someone = Peer("", 0, "", (), networks=tuple(behind))
    refused = conflicts([dataclasses.replace(interface, peers=(someone,))], host_routes)
    return {network for network in behind if (interface.name, network) not in refused}


def _refused(name: str, network: Network, routes: Iterable[tuple[Network, HostRoute]]) -> str:
    for other, route in routes:
        if route.link == name:
            continue
        if other == network or (route.attached and other.version == network.version and _within(network, other)):
            return f"the host itself has {other} on {route.link}" if route.link else f"the host has a route for {other}"
    return ""


def _within(inner: Network, outer: Network) -> bool:
    first, last = int(outer.network_address), int(outer.broadcast_address)
    return first <= int(inner.network_address) and int(inner.broadcast_address) <= last
