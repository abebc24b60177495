"""Which routes WireGuard's own packets take where the main table would send them into a tunnel. Pure."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from servers.hostnet.state import Interface
from servers.hostnet.state.addresses import Network, overlap

UNREACHABLE = 7  # RTN_UNREACHABLE in linux/rtnetlink.h
LAST = 0xFFFFFFFF  # metric


@dataclass(frozen=True, slots=True, order=True)
class Way:
    """A route, as far as it says where packets go. ``kind`` is RTN_UNICAST or one that leads nowhere; ``hops`` are
    pairs of a link's index and a router's address, which is empty where there is none in between."""

    family: int
    network: str
    metric: int
    kind: int
    hops: tuple[tuple[int, str], ...] = ()
    source: str = ""


def ours(interfaces: Iterable[Interface]) -> list[Network]:
    """What is routed into tunnels, or may be as soon as a client connects."""
    found: set[Network] = set()
    for interface in interfaces:
        found.update(ipaddress.ip_interface(address).network for address in interface.addresses)
        found.update(ipaddress.ip_network(network) for network in interface.behind)
        found.update(ipaddress.ip_network(network) for peer in interface.peers for network in peer.networks)
    return sorted(found, key=lambda network: (network.version, network))


def beside(tunnels: Iterable[Network], host: Iterable[Way]) -> frozenset[Way]:
    """The ways of the host that lead to addresses within ``tunnels``, and one that ends there what no other takes: it
    must not go on to the main table. Of a family in which the host has no way, none."""
    tunnels = list(tunnels)
    found = {way for way in host if any(overlap(ipaddress.ip_network(way.network), each) for each in tunnels)}
    last = {Way(way.family, _everywhere(way.family), LAST, UNREACHABLE) for way in host} if tunnels else set()
    return frozenset(found | last)


def _everywhere(family: int) -> str:
    return "0.0.0.0/0" if family == socket.AF_INET else "::/0"
