"""What a host has of networks besides our tunnels, as it reports it: what a tunnel must not take the place of. Pure."""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from .addresses import Network, overlap
from .names import INTERFACE, OUR_INTERFACE

MOST = 1000  # networks of one report; the first ones are kept


class Kind(enum.StrEnum):
    """ADDRESS: one of the host's own. ATTACHED: the network is on the link itself, without a router in between. ROUTER:
    the default route's next hop."""

    ADDRESS = "address"
    ATTACHED = "attached"
    ROUTER = "router"


@dataclass(frozen=True, slots=True, order=True)
class HostNetwork:
    """``network`` in prefix notation, an address alone (/32, /128)."""

    kind: Kind
    network: str
    link: str

    def __str__(self) -> str:
        if self.kind is Kind.ATTACHED:
            return f"{self.network} on {self.link}"
        what = "address" if self.kind is Kind.ADDRESS else "router"
        return f"{self.network.partition('/')[0]} ({what}) on {self.link}"


def surrounds(network: str, link: str) -> bool:
    """Whether it is of the host's surroundings: not loopback, link-local or multicast, no default route, and no tunnel
    of ours."""
    parsed = ipaddress.ip_network(network)
    special = parsed.is_loopback or parsed.is_link_local or parsed.is_multicast
    return not special and bool(parsed.prefixlen) and OUR_INTERFACE.fullmatch(link) is None


def met_by(network: Network, there: Iterable[HostNetwork]) -> HostNetwork | None:
    """What of the host's own ``network`` overlaps: a whole network rather than a single address."""
    met = [each for each in there if overlap(ipaddress.ip_network(each.network), network)]
    return min(met, key=lambda each: each.kind is not Kind.ATTACHED, default=None)


def host_networks_to_json(found: Iterable[HostNetwork]) -> list[list[str]]:
    """In one order, so that what did not change is the same text."""
    return [[each.kind.value, each.network, each.link] for each in sorted(set(found))[:MOST]]


def host_networks_from_json(data: object) -> list[HostNetwork]:
    """Of a report, which is not trusted. Raise ``TypeError`` or ``ValueError`` where it is no list of networks."""
    if not isinstance(data, list):
        raise TypeError("networks are no list")
    return [_host_network(each) for each in data[:MOST]]


def _host_network(data: object) -> HostNetwork:
    if not isinstance(data, list) or len(data) != 3 or not all(isinstance(each, str) for each in data):
        raise TypeError("a network of a host is not three texts")
    kind, network, link = data
    if not INTERFACE.fullmatch(link):
        raise ValueError("the name of a link")
    return HostNetwork(Kind(kind), str(ipaddress.ip_network(network)), link)
