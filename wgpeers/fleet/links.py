"""Linked servers, as hosts and clients are told of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from servers import networks, routing
from servers.hostnet.state import Interface, Link, Route
from servers.models import Server, ServerLink, links_of
from servers.networks import Network
from servers.routing import Routed


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A running server that another one is linked with, and what it has."""

    link: ServerLink
    server: Server
    tunnels: tuple[Network, ...]
    behind: tuple[Network, ...]
    routed: tuple[Routed, ...]

    def zone_for(self, server: Server) -> str:
        """The zone of the neighbour's clients' names, where ``server`` knows these; else empty."""
        known = self.link.names and server.dns_mapping and self.server.dns_mapping
        return self.server.dns_zone.lower() if known else ""


def neighbours_of(servers: Iterable[Server]) -> dict[int, list[Neighbour]]:
    """By server (primary key). One that does not run is nobody's neighbour: nothing leads to it."""
    return {key: [_neighbour(*pair) for pair in pairs if pair[1].running] for key, pairs in links_of(servers).items()}


def _neighbour(link: ServerLink, server: Server) -> Neighbour:
    behind = server.client_networks.order_by("network").values_list("network", flat=True)
    return Neighbour(
        link,
        server,
        tuple(routing.tunnel_networks([server])),
        # IPv6 may have been turned off since.
        tuple(each for text in dict.fromkeys(behind) if (each := networks.parse(text)).version == 4 or server.ipv6),
        tuple(routing.for_linked(server.routes.all())),
    )


def route_of(piece: Routed, *, nat: bool = False) -> Route:
    """As a host knows it; ``nat``: whatever the route itself says."""
    row = piece.route
    return Route(str(piece.network), nat or row.nat, row.nat_interface, str(piece.real) if piece.real else "")


def joined(interface: Interface, server: Server, neighbours: Sequence[Neighbour], here: Collection[int]) -> Interface:
    """The interface of ``server`` with its links. ``here`` are the servers (primary keys) that the host carries."""
    if not neighbours:
        return interface
    own = {route.network for route in interface.routes}
    reached = [
        route_of(piece, nat=each.link.masquerade)
        for each in neighbours
        if each.server.pk in here
        for piece in each.routed
        if str(piece.network) not in own
    ]
    found = tuple(_link(server, each, carried=each.server.pk in here) for each in neighbours)
    return dataclasses.replace(interface, routes=(*interface.routes, *reached), links=found)


def _link(server: Server, neighbour: Neighbour, *, carried: bool) -> Link:
    other = neighbour.server
    return Link(
        server=other.public_id,
        interface=other.interface,
        networks=tuple(map(str, neighbour.tunnels)),
        behind=tuple(map(str, neighbour.behind)),
        routed=() if carried else tuple(str(piece.network) for piece in neighbour.routed),
        clients=server.inter_client and other.inter_client,
        masquerade=neighbour.link.masquerade,
        zone=neighbour.zone_for(server),
    )
