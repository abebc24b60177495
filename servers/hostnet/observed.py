"""What was read of a host's network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from servers.hostnet.marks import GROUP
from servers.hostnet.state.host_networks import HostNetwork
from servers.hostnet.wireguard.base import Device

USUAL_MTU = 1500  # bytes; of a way out that nobody knows


@dataclass(frozen=True, slots=True)
class HostRoute:
    """A route that is not of our making. ``link`` is empty where it leads to none (a blackhole, say); ``attached``:
    the network is on that link itself, without a router in between (never said of a default route)."""

    network: str
    link: str
    attached: bool


@dataclass(frozen=True, slots=True)
class ObservedLink:
    """A link as the kernel has it. ``addresses`` in prefix notation, without IPv6 link-local ones; ``routes`` are the
    networks that we routed to it; ``group`` is that of the link, 0: none."""

    up: bool
    mtu: int
    addresses: frozenset[str]
    routes: frozenset[str] = frozenset()
    group: int = GROUP


@dataclass(frozen=True, slots=True)
class Observed:
    """What the host has: WireGuard devices and links by name. A broken interface may be in one of them only.

    ``host_routes`` are all routes that are not of our making. ``outer_mtu`` is the smallest MTU of the links by which
    the host's default routes leave. ``own`` are its networks besides our tunnels.
    """

    devices: Mapping[str, Device]
    links: Mapping[str, ObservedLink]
    host_routes: tuple[HostRoute, ...] = ()
    outer_mtu: int = USUAL_MTU
    own: tuple[HostNetwork, ...] = ()
