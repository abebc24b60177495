"""Linked servers, as hosts and clients are told of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from servers import networks, outside_links, routing
from servers.hostnet.state import LINK_PREFIX, Interface, Link, OpenVpn, Route
from servers.link_keys import EndKeys, LinkKeys
from servers.models import Host, OutsideLink, Server, ServerLink, address_of, end_of_outside, ends_of, links_of
from servers.networks import Network
from servers.routing import Routed
from servers.validators import listed

from .ways import way_to


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
    """By server (primary key). One that does not run is nobody's neighbour: nothing leads to it. Nor does anything
    where OpenVPN has no two hosts to carry it between."""
    return {
        key: [_neighbour(link, other) for link, other in pairs if other.running and _can_be_carried(link)]
        for key, pairs in links_of(servers).items()
    }


def _can_be_carried(link: ServerLink) -> bool:
    return not link.by_openvpn or ends_of(link) is not None


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


def joined(
    interface: Interface, server: Server, neighbours: Sequence[Neighbour], host: Host, here: Collection[int]
) -> Interface:
    """The interface of ``server`` on ``host`` with its links. ``here`` are the servers (primary keys) that the host
    carries."""
    outside = _outside(server)
    if not neighbours and not outside:
        return interface
    own = {route.network for route in interface.routes}
    reached = [
        route_of(piece, nat=each.link.masquerade)
        for each in neighbours
        if _on_this_host(each, here)
        for piece in each.routed
        if str(piece.network) not in own
    ]
    found = (_link(server, each, host, carried=_on_this_host(each, here)) for each in neighbours)
    return dataclasses.replace(interface, routes=(*interface.routes, *reached), links=(*found, *outside))


def _on_this_host(neighbour: Neighbour, here: Collection[int]) -> bool:
    return neighbour.server.pk in here and not neighbour.link.by_openvpn


def by_another(neighbour: Neighbour, host: Host) -> list[Routed]:
    """What of a neighbour's routes is reached from ``host``, which does not carry it."""
    every = list(neighbour.routed)
    if neighbour.link.by_openvpn:
        return every
    return every if every and way_to(neighbour.server, host) else []


def _link(server: Server, neighbour: Neighbour, host: Host, *, carried: bool) -> Link:
    other, nat = neighbour.server, neighbour.link.masquerade
    own = routing.for_linked(server.routes.all())
    return Link(
        server=other.public_id,
        interface=other.interface,
        networks=tuple(map(str, neighbour.tunnels)),
        behind=tuple(map(str, neighbour.behind)),
        routed=() if carried else tuple(route_of(piece, nat=nat) for piece in neighbour.routed),
        via="" if carried or neighbour.link.by_openvpn else way_to(other, host),
        offered=tuple(route_of(piece, nat=nat) for piece in own),
        clients=server.inter_client and other.inter_client,
        masquerade=nat,
        zone=neighbour.zone_for(server),
        openvpn=_end(neighbour.link, host) if neighbour.link.by_openvpn else None,
    )


def _end(link: ServerLink, host: Host) -> OpenVpn | None:
    """That of ``host``."""
    ends = ends_of(link)
    if ends is None or host not in ends:
        return None
    listens = ends[0] == host
    keys = LinkKeys.from_text(link.keys.reveal()).of(listens=listens)
    return end_of(f"{LINK_PREFIX}{2 * link.pk}", link.port, "" if listens else address_of(ends[0]), keys, link.mtu)


def works_outside(server: Server) -> list[OutsideLink]:
    """Its links to other installations that are ready to be used."""
    return [row for row in server.outside_links.all() if row.works and end_of_outside(row) is not None]


def _outside(server: Server) -> list[Link]:
    """On the one host of ``server``."""
    links = works_outside(server)
    own, has = (routing.for_linked(server.routes.all()), routing.offered(server)) if links else ([], {})
    found = []
    for row in links:
        shown = [each for each in listed(row.ours) if each in has]  # others have gone since
        offered = [piece for piece in own if piece.real is None and str(networks.parse(piece.route.network)) in shown]
        end = end_of(row.device, row.port, row.address, outside_links.keys_of(row), row.mtu)
        found.append(
            Link(
                server=row.link_id,
                interface="",
                networks=tuple(map(str, row.their_networks)),
                offered=tuple(route_of(piece) for piece in offered),
                masquerade=row.masquerade,
                openvpn=end,
                outside=True,
                shown=tuple(shown),
            )
        )
    return found


def end_of(device: str, port: int, address: str, keys: EndKeys, mtu: int) -> OpenVpn:
    """``address`` is where the other end listens; empty: this one does."""
    own = (keys.peer, keys.authority, keys.certificate, keys.key, keys.tls_crypt)
    return OpenVpn(device, port, address, *own, mtu=mtu)
