"""What a server's routes say of addresses: who may be reached, in whose name, and by which other address. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from servers.hostnet.state import FOREIGN_INTERFACE, OUR_INTERFACE, Interface, Route

from .intervals import Interval, Network, mapped, most_specific

EVERYTHING = {4: "0.0.0.0/0", 6: "::/0"}

Range = tuple[int, int]
Pair = tuple[Network, Network]


@dataclass(frozen=True, slots=True)
class Action:
    """How a route is gone: see ``Route``. ``pair`` are the network and the real one behind it, where they differ."""

    nat: bool
    nat_interface: str
    pair: Pair | None


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """The routes of one server and IP version as disjoint ranges of addresses, where the more specific route decides.

    ``routes`` are reached by their own addresses; ``plain`` are those of them that may open connections to clients.
    ``given`` is what clients send into the tunnel. ``nat``: what is reached in the host's name, by the interface that
    it must leave by (empty: any). ``netmap`` leads from addresses that clients use (``virtual``) to the ``real`` ones;
    ``unmap`` back, for the real networks that may open connections (``open``).
    """

    routes: list[Range]
    plain: list[Range]
    given: list[Range]
    nat: dict[str, list[Range]]
    virtual: list[Range]
    real: list[Range]
    open: list[Range]
    netmap: list[Pair]
    unmap: list[Pair]

    @classmethod
    def of(cls, interface: Interface, version: int) -> RoutePolicy:
        actions = _actions(interface, version)
        reached = [(first, last, action) for first, last, action in actions if action is not None]
        direct = [interval for interval in reached if interval[2].pair is None]
        netmap = _netmap(reached)
        unmap = _unmap([interval for interval in reached if not interval[2].nat])
        return cls(
            routes=[(first, last) for first, last, _ in direct],
            plain=[(first, last) for first, last, action in direct if not action.nat],
            given=_merged(network for network in map(_network, interface.routes) if network.version == version),
            nat={
                name: [(first, last) for first, last, action in reached if action.nat and action.nat_interface == name]
                for name in sorted({action.nat_interface for _, _, action in reached if action.nat})
            },
            virtual=_merged(here for here, _ in netmap),
            real=_merged(there for _, there in netmap),
            open=_merged(there for there, _ in unmap),
            netmap=netmap,
            unmap=unmap,
        )

    def nat_interfaces(self) -> list[tuple[int, str]]:
        """What ``nat`` knows, each with a number by which it may be called; 0 is that of any interface."""
        names = sorted(name for name in self.nat if name)
        return [*([(0, "")] if "" in self.nat else []), *enumerate(names, 1)]


def _network(route: Route) -> Network:
    return ipaddress.ip_network(route.network)


def _actions(interface: Interface, version: int) -> list[Interval[Action | None]]:
    """What is said of each address; None: nothing gets there."""
    said: dict[Network, Action | None] = {}
    if not interface.restrict:
        said[ipaddress.ip_network(EVERYTHING[version])] = Action(True, "", None)
    routes = [route for route in interface.routes if _network(route).version == version]
    # Else a default route would send what is for a client's network to the internet while nobody serves it.
    behind = map(ipaddress.ip_network, (*interface.behind, *_linked(interface)))
    said |= {network: None for network in behind if network.version == version}
    # A real network is hidden by its netmap, also from a wider route, but not from a route of its own.
    said |= {ipaddress.ip_network(route.netmap): None for route in routes if route.netmap}
    for route in routes:
        network = _network(route)
        pair = (network, ipaddress.ip_network(route.netmap)) if route.netmap else None
        said[network] = Action(route.nat, route.nat_interface, pair)
    return most_specific(said)


def _linked(interface: Interface) -> Iterator[str]:
    """What lies behind links. Those of its routes that this host carries are among the interface's own."""
    for link in interface.links:
        yield from (*link.networks, *link.behind, *(route.network for route in link.routed))


def _netmap(intervals: Iterable[Interval[Action]]) -> list[Pair]:
    return list(mapped((first, last, action.pair) for first, last, action in intervals if action.pair is not None))


def _unmap(intervals: Iterable[Interval[Action]]) -> list[Pair]:
    """The way back. Where two networks stand for the same real one, it is known by the first of them."""
    back: dict[Network, Pair] = {}
    for here, there in _netmap(intervals):
        back.setdefault(there, (there, here))
    return list(mapped(most_specific(back)))


def _merged(networks: Iterable[Network]) -> list[Range]:
    return [(first, last) for first, last, _ in most_specific(dict.fromkeys(networks, True))]


class BadRuleset(ValueError):
    """Something that must not get into the text of the table."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A server on this host. ``gateways``: its own addresses; ``policy``: what its clients reach, by IP version."""

    name: str
    port: int
    inter_client: bool
    gateways: Sequence[ipaddress.IPv4Interface | ipaddress.IPv6Interface]
    policy: dict[int, RoutePolicy]

    @classmethod
    def of(cls, interface: Interface) -> Tunnel:
        if not OUR_INTERFACE.fullmatch(interface.name):
            raise BadRuleset("an interface name that is not ours")
        if not all(OUR_INTERFACE.fullmatch(link.interface) for link in interface.links if not link.outside):
            raise BadRuleset("the name of a linked server's interface")
        routes = (*interface.routes, *(route for link in interface.links for route in link.offered))
        if any(route.nat_interface and not FOREIGN_INTERFACE.fullmatch(route.nat_interface) for route in routes):
            raise BadRuleset("the name of a NAT interface")
        gateways = [ipaddress.ip_interface(address) for address in interface.addresses]
        # Routes of an IP version that the server has no address of do nothing.
        versions: list[int] = sorted({each.version for each in gateways})
        policy = {version: RoutePolicy.of(interface, version) for version in versions}
        return cls(interface.name, int(interface.port), interface.inter_client, gateways, policy)
