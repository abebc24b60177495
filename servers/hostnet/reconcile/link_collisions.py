"""Which networks at the other ends of links that OpenVPN carries the host has itself. What is for these it does not
send into a link, whose routing tables are asked before its own. Pure.

The control side refuses such a link by what the host last reported. Between two reports only the host knows.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Callable, Iterable, Mapping

from servers.hostnet.netlink.links import LinkError
from servers.hostnet.state import Code, HostCondition, Interface, Link
from servers.hostnet.state.host_networks import HostNetwork, met_by

# In words, by interface and network.
Collisions = Mapping[tuple[str, str], str]


def link_collisions(interfaces: Iterable[Interface], own: Iterable[HostNetwork]) -> Collisions:
    """``own`` is what the host has besides our tunnels."""
    there, found = tuple(own), {}
    for interface in interfaces:
        for link in interface.links:
            for network in (*link.networks, *link.behind) if _leads_away(link) else ():
                if (met := met_by(ipaddress.ip_network(network), there)) is not None:
                    found[interface.name, network] = (
                        f"{interface.name}: {network}, at the other end of a link, overlaps {met}, which the host has "
                        "itself. It is not reached by the link from here: give one of the two another network."
                    )
    return found


class LastCollisions:
    """Those of the last apply."""

    def __init__(self) -> None:
        self.found: Collisions = {}

    def differ(self, interfaces: Iterable[Interface], own: Callable[[], Iterable[HostNetwork]]) -> bool:
        """Whether the host has got, or lost, a network that is at the other end of a link. It is read, by ``own``, only
        where there are links at all, and where that fails something is amiss too."""
        known = tuple(interfaces)
        if not any(interface.links for interface in known):
            return False
        try:
            return link_collisions(known, own()) != self.found
        except LinkError:
            return True


def without(interfaces: Iterable[Interface], found: Collisions) -> tuple[Interface, ...]:
    """As far as the host leads to it."""
    return tuple(_without(each, found) if found else each for each in interfaces)


def _without(interface: Interface, found: Collisions) -> Interface:
    def free(networks: Iterable[str]) -> tuple[str, ...]:
        return tuple(each for each in networks if (interface.name, each) not in found)

    links = (
        dataclasses.replace(link, networks=free(link.networks), behind=free(link.behind)) if _leads_away(link) else link
        for link in interface.links
    )
    return dataclasses.replace(interface, links=tuple(links))


def _leads_away(link: Link) -> bool:
    return link.openvpn is not None or link.there


def conditions(found: Collisions) -> list[HostCondition]:
    return [HostCondition.of(Code.NETWORK_COLLIDES, text) for text in found.values()]
