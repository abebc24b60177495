"""Which tunnels would take the place of a network that the host has itself: its LAN, its uplink, its router. Pure.

The control side refuses such a tunnel by what the host last reported. Between two reports only the host knows.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from servers.hostnet.observed import Observed
from servers.hostnet.state import Interface
from servers.hostnet.state.host_networks import met_by


@dataclass(frozen=True, slots=True)
class Collision:
    """``held_back``: the addresses that the interface does not get. ``unmade``: it is not made at all. A tunnel that
    was there first is left as it is, since its clients are on it; what collides with it is only said."""

    text: str
    held_back: frozenset[str]
    unmade: bool


def collisions(interfaces: Iterable[Interface], observed: Observed) -> Mapping[str, Collision]:
    """By interface."""
    found = {}
    for interface in interfaces:
        there = interface.name in observed.devices and interface.name in observed.links
        has = observed.links[interface.name].addresses if there else frozenset()
        met = {
            address: each
            for address in interface.addresses
            if (each := met_by(ipaddress.ip_interface(address).network, observed.own)) is not None
        }
        if met:
            held_back = frozenset(met) - has
            found[interface.name] = Collision(_words(interface.name, met, held_back), held_back, not there)
    return found


def _words(name: str, met: Mapping[str, object], held_back: frozenset[str]) -> str:
    pairs = "; ".join(f"{ipaddress.ip_interface(address).network} overlaps {each}" for address, each in met.items())
    if held_back:
        return f"{name}: {pairs}, which the host has itself. The tunnel is not made: give its server another network."
    return (
        f"{name}: {pairs}, which the host has got since. Its clients stay connected, but neither network is reached as "
        "a whole: give one of the two another network."
    )
