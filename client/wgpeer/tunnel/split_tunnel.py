"""Split tunnelling: which networks go through the tunnel, as routes of the two tables that ``routing`` describes.
Pure."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from wgpeer.responses import Route

UNICAST, UNREACHABLE, THROW = 1, 7, 9  # RTN_...
# A route of the main table for so much or more is no LAN: it counts as a default route, and everything goes past it.
WIDEST_DEFAULT = {4: 7, 6: 15}
DEFAULT_METRIC = {4: 0, 6: 1024}  # what the kernel gives a route without one
FIRST_METRIC, LAST_METRIC = 1, 0xFFFFFFFE  # of what must win over a route of ours, and of what must come after it

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
DEFAULT_ROUTES: tuple[Network, ...] = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


@dataclass(frozen=True, slots=True)
class TableRoute:
    """A route in a table of ours. ``kind`` is UNICAST (through the interface), THROW (on to the next rule) or
    UNREACHABLE."""

    network: str
    kind: int
    metric: int


@dataclass(frozen=True, slots=True)
class MainTable:
    """The main table without our interface's routes: ``connected`` are the networks this machine is in itself,
    ``metrics`` is the lowest metric of every network. ``tunnelled`` are those of ``connected`` that it is in by another
    tunnel of ours."""

    connected: frozenset[Network] = frozenset()
    metrics: Mapping[Network, int] = field(default_factory=dict)
    tunnelled: frozenset[Network] = frozenset()


@dataclass(frozen=True, slots=True)
class SplitTunnel:
    """``included`` networks and ``default_routes`` (0.0.0.0/0, ::/0) go through the tunnel, each with its metric (0:
    none given); ``excluded`` networks do not."""

    included: Mapping[Network, int]
    default_routes: Mapping[Network, int]
    excluded: frozenset[Network]

    def tables(
        self, family: int, main: MainTable, *, usable: bool = True, others: Iterable[Network] = ()
    ) -> tuple[set[TableRoute], set[TableRoute]]:
        """Tables A and B of ``routing`` for AF_INET or AF_INET6. Without ``usable`` the interface cannot carry this
        family. ``others`` are the networks that other tunnels of ours carry.

        A connected network that lies inside an included one stays outside the tunnel, or a laptop would lose its own
        LAN. What another tunnel carries inside an included one is left to it: the more specific route wins.
        """
        version = 4 if family == socket.AF_INET else 6
        through = UNICAST if usable else UNREACHABLE
        included = {network: metric for network, metric in self.included.items() if network.version == version}
        kept = {network for network in self.excluded if network.version == version}
        inner = {*main.connected, *(net for net in others if net not in included)}
        thrown = kept | {net for net in inner if any(is_inside(net, wide) for wide in included)}
        thrown |= {net for net, metric in included.items() if metric and main.metrics.get(net, metric) < metric}
        first = {TableRoute(str(net), THROW, FIRST_METRIC) for net in thrown}
        first |= {TableRoute(str(net), through, metric or DEFAULT_METRIC[version]) for net, metric in included.items()}
        last = set[TableRoute]()
        for net, metric in self.default_routes.items():
            if net.version == version:
                last.add(TableRoute(str(net), through, metric or DEFAULT_METRIC[version]))
                last.add(TableRoute(str(net), UNREACHABLE, LAST_METRIC))
        if last:
            last |= {TableRoute(str(net), THROW, FIRST_METRIC) for net in kept}
        return (first if included else set()), last

    def outside(self, family: int, main: MainTable) -> list[tuple[int, int]]:
        """The addresses that these routes leave outside though everything goes through the tunnel: LANs, and what is
        kept outside. Ranges of numbers, first and last, in order."""
        version = 4 if family == socket.AF_INET else 6
        first, _ = self.tables(family, main)
        # Of two entries for one network the kernel takes the one with the lower metric.
        by_metric = sorted(first, key=lambda entry: -entry.metric)
        taken = {ipaddress.ip_network(entry.network): entry.kind for entry in by_metric}
        through = {net for net, kind in taken.items() if kind != THROW}
        thrown = taken.keys() - through
        lans = {
            net
            for net in main.metrics
            if net.version == version
            and net.prefixlen > WIDEST_DEFAULT[version]
            and not any(net == wide or is_inside(net, wide) for wide in through)
        }
        left = lans | thrown | {net for net in self.excluded if net.version == version}
        return _ranges(dict.fromkeys(through, False) | dict.fromkeys(left, True))

    def swallowed_lans(self, main: MainTable) -> list[Network]:
        """The LANs of this machine that a network of the tunnel is the same as, or a part of: there the tunnel wins."""
        lans = main.connected - main.tunnelled - self.excluded
        return sorted(
            (lan for lan in lans if any(net == lan or is_inside(net, lan) for net in self.included)),
            key=lambda net: (net.version, net),
        )

    @property
    def allowed_ips(self) -> tuple[str, ...]:
        """WireGuard's allowed IPs of the peer, sorted."""
        return tuple(sorted(str(network) for network in [*self.included, *self.default_routes]))

    def covers(self, address: str) -> bool:
        """Whether packets to an address go through the tunnel."""
        parsed = ipaddress.ip_address(address)
        through = [net for net in [*self.included, *self.default_routes] if parsed in net]
        if not through:
            return False
        longest = max(through, key=lambda net: net.prefixlen)
        return not any(parsed in net and is_inside(net, longest) for net in self.excluded)

    @property
    def description(self) -> str:
        """For people: what goes through the tunnel, and what does not."""
        whole = sorted(net.version for net in self.default_routes)
        families = " and ".join(f"IPv{version}" for version in whole)
        shown = [f"{families}: everything but this machine's LANs"] if whole else []
        left = [net for net in self.included if net.version not in whole]
        widest = [net for net in left if not any(is_inside(net, wide) for wide in left)]
        shown += _sorted_texts(widest)
        return ", ".join(shown) + (f"; not {', '.join(_sorted_texts(self.excluded))}" if self.excluded else "")


def split_routes(routes: Iterable[Route], gateway: str, *, use_default_route: bool) -> SplitTunnel:
    """Sort a configuration's routes. The gateway (an address) is always included, because pings go there. Without
    ``use_default_route`` the default routes are left out.

    All addresses of a family in pieces, as a server sends them that cuts the excluded networks out, count as its
    default route.
    """
    included = dict[Network, int]()
    excluded = {ipaddress.ip_network(route.network) for route in routes if route.excluded}
    for route in sorted(routes, key=lambda route: -route.metric):  # of two for one network the lower metric stays
        if not route.excluded:
            included[ipaddress.ip_network(route.network)] = route.metric
    default_routes = dict[Network, int]()
    for whole in DEFAULT_ROUTES:
        if list(_collapsed([*included, *excluded], whole)) != [whole]:
            continue
        pieces = {whole} if whole in included else _complement(whole, excluded) & included.keys()
        if pieces:
            default_routes[whole] = max(included[piece] for piece in pieces)
            included = {network: metric for network, metric in included.items() if network not in pieces}
    included[ipaddress.ip_network(gateway)] = 0
    return SplitTunnel(included, default_routes if use_default_route else {}, frozenset(excluded - included.keys()))


def _ranges(labels: Mapping[Network, bool]) -> list[tuple[int, int]]:
    """The addresses (of one family) whose innermost network has a true label."""
    found, cursor = list[tuple[int, int]](), 0
    around = list[tuple[int, bool]]()  # the last address and label of each network that we are in

    def leave(last: int, *, label: bool) -> None:
        nonlocal cursor
        if label and cursor <= last:
            joined = found.pop()[0] if found and found[-1][1] == cursor - 1 else cursor
            found.append((joined, last))
        cursor = max(cursor, last + 1)

    for net in sorted(labels, key=lambda net: (int(net[0]), net.prefixlen)):
        first, last = int(net[0]), int(net[-1])
        while around and around[-1][0] < first:
            end, label = around.pop()
            leave(end, label=label)
        leave(first - 1, label=bool(around) and around[-1][1])
        around.append((last, labels[net]))
    for end, label in reversed(around):
        leave(end, label=label)
    return found


def _complement(whole: Network, holes: Iterable[Network]) -> set[Network]:
    """What remains of a default route without the holes, in the fewest networks."""
    pieces: list[Any] = [whole]
    for hole in _collapsed(holes, whole):
        pieces = [
            part for piece in pieces for part in (piece.address_exclude(hole) if hole.subnet_of(piece) else [piece])
        ]
    return set(_collapsed(pieces, whole))


def _collapsed(networks: Iterable[Network], like: Network) -> Iterable[Any]:
    """The networks of one family, put together into the fewest."""
    return ipaddress.collapse_addresses(cast(Any, [net for net in networks if net.version == like.version]))


def _sorted_texts(networks: Iterable[Network]) -> list[str]:
    return [str(net) for net in sorted(networks, key=lambda net: (net.version, net))]


def is_inside(small: Network, wide: Network) -> bool:
    """Whether a network is a part of another one, and not all of it."""
    return small.version == wide.version and small.prefixlen > wide.prefixlen and small[0] in wide
