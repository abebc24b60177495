"""Networks of a server that its clients know by other addresses (``Route.netmap``), for clients of linked servers that
reach them by this host. As for its own: destinations are translated on the way in, and the sources of what such a
network opens, where it may, on the way out. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence

from servers.hostnet.state import Route

from .intervals import Network, mapped, most_specific
from .sets import ANSWERS, FAMILY, anonymous

Pair = tuple[Network, Network]


def pairs(routes: Iterable[Route], version: int) -> list[Pair]:
    """What clients use, and the real network behind it, without overlaps: the more specific route decides."""
    whole: dict[Network, Pair | None] = {}
    for route in routes:
        network = ipaddress.ip_network(route.network)
        if network.version == version:
            whole[network] = (network, ipaddress.ip_network(route.netmap)) if route.netmap else None
    return list(mapped((first, last, pair) for first, last, pair in most_specific(whole) if pair is not None))


def way_back(routes: Sequence[Route], version: int) -> list[Pair]:
    """Real networks that may open connections, and what they are known by: where there are two, by the first."""
    found: dict[Network, Pair] = {}
    for here, there in pairs(routes, version):
        if not _natted(routes, here):
            found.setdefault(there, (there, here))
    return list(mapped(most_specific(found)))


def _natted(routes: Sequence[Route], piece: Network) -> bool:
    around = [(ipaddress.ip_network(route.network), route.nat) for route in routes]
    mine = [(network.prefixlen, nat) for network, nat in around if _within(piece, network)]
    return max(mine)[1]


def _within(piece: Network, network: Network) -> bool:
    if isinstance(piece, ipaddress.IPv4Network):
        return isinstance(network, ipaddress.IPv4Network) and piece.subnet_of(network)
    return isinstance(network, ipaddress.IPv6Network) and piece.subnet_of(network)


def to_real(found: Sequence[Pair], version: int, way: str, clients: str) -> Iterator[str]:
    """``way`` matches where they come from, ``clients`` is the set of their addresses."""
    if found:
        ip = FAMILY[version]
        yield f"iifname {way} {ip} saddr {clients} dnat {ip} prefix to {ip} daddr map {_map(found)}"


def to_virtual(found: Sequence[Pair], version: int, way: str, clients: str) -> Iterator[str]:
    if found:
        ip = FAMILY[version]
        yield f"oifname {way} {ip} daddr {clients} snat {ip} prefix to {ip} saddr map {_map(found)}"


def reaching(routes: Sequence[Route], version: int) -> Iterator[str]:
    """Matches what goes there. In the forward hook destinations are the real ones by then, and only conntrack knows
    what was asked for: nobody gets there by asking for the real ones."""
    ip = FAMILY[version]
    if found := pairs(routes, version):
        yield f"{_asked(found, version)} {ip} daddr {anonymous(there for _, there in found)}"
    if back := way_back(routes, version):
        yield f"{ip} daddr {anonymous(there for there, _ in back)} {ANSWERS}"


def coming(routes: Sequence[Route], version: int) -> Iterator[str]:
    """Matches what comes from there: answers, and without NAT whatever comes."""
    ip = FAMILY[version]
    if found := pairs(routes, version):
        yield f"{_asked(found, version)} {ip} saddr {anonymous(there for _, there in found)} {ANSWERS}"
    if back := way_back(routes, version):
        yield f"{ip} saddr {anonymous(there for there, _ in back)}"


def asked_for(routes: Sequence[Route], version: int) -> Iterator[str]:
    """Matches what was asked for by such addresses, for NAT."""
    if found := pairs(routes, version):
        yield _asked(found, version)


def _asked(found: Sequence[Pair], version: int) -> str:
    return f"ct original {FAMILY[version]} daddr {anonymous(here for here, _ in found)}"


def _map(found: Sequence[Pair]) -> str:
    return f"{{ {', '.join(f'{here} : {there}' for here, there in found)} }}"
