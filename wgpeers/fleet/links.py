"""Linked servers, as hosts and clients are told of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from servers import carriers, networks, outside_links, routing
from servers.carriers import Place
from servers.hostnet.state import Interface, Link, OpenVpn, Route
from servers.hostnet.state.openvpn import MOST_ADDRESSES
from servers.link_keys import EndKeys, LinkKeys
from servers.models import (
    ByOpenVpn,
    Host,
    OutsideLink,
    Server,
    ServerLink,
    address_of,
    end_of_outside,
    ends_of,
    links_of,
)
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
    outside = _outside(server, host)
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
    end = _end(neighbour.link, server, host) if neighbour.link.by_openvpn else None
    return Link(
        server=other.public_id,
        interface=other.interface,
        networks=tuple(map(str, neighbour.tunnels)),
        behind=tuple(map(str, neighbour.behind)),
        routed=() if carried else tuple(route_of(piece, nat=nat) for piece in neighbour.routed),
        via=end.via if end is not None else "" if carried else way_to(other, host),
        offered=tuple(route_of(piece, nat=nat) for piece in own),
        clients=server.inter_client and other.inter_client,
        masquerade=nat,
        zone=neighbour.zone_for(server),
        openvpn=end.openvpn if end is not None else None,
        there=end is not None and bool(end.via),
    )


@dataclass(frozen=True, slots=True)
class End:
    """Of a link that OpenVPN carries, as one host of its server has it: ``openvpn`` where it is on that host, else
    ``via`` (public id), where it is. Neither: nowhere."""

    openvpn: OpenVpn | None = None
    via: str = ""


def _end(link: ServerLink, server: Server, host: Host) -> End:
    places = carriers.link_places(link)
    mine, theirs = places.get(server.pk), places.get(link.other(server).pk)
    if mine is None or theirs is None:
        return End()
    listens = next(iter(places)) == server.pk
    first = carriers.holder(theirs)  # who has it now is asked before the others
    rows = sorted(theirs.rows, key=lambda row: row.host != first)
    addresses = () if listens else tuple(address_of(row.host) for row in rows)
    return _at(
        mine, host, lambda: _openvpn(link, addresses, LinkKeys.from_text(link.keys.reveal()).of(listens=listens))
    )


def _at(place: Place, host: Host, openvpn: Callable[[], OpenVpn]) -> End:
    there = carriers.holder(place)
    if there is None:
        return End()
    return End(openvpn()) if there == host else End(via=there.public_id)


def _openvpn(link: ByOpenVpn, addresses: Sequence[str], keys: EndKeys) -> OpenVpn:
    """``addresses`` are where the other end listens; none: this one does."""
    own = (keys.peer, keys.authority, keys.certificate, keys.key, keys.tls_crypt)
    return OpenVpn(link.device, link.port, tuple(addresses)[:MOST_ADDRESSES], *own, mtu=link.mtu)


def works_outside(server: Server) -> list[OutsideLink]:
    """Its links to other installations that are ready to be used."""
    return [row for row in server.outside_links.all() if row.works and end_of_outside(row)]


def _outside(server: Server, host: Host) -> list[Link]:
    """As ``host`` has them, which carries ``server``."""
    links = works_outside(server)
    own, has = (routing.for_linked(server.routes.all()), routing.offered(server)) if links else ([], {})
    found = []
    for row in links:
        shown = [each for each in listed(row.ours) if each in has]  # others have gone since
        offered = [piece for piece in own if str(networks.parse(piece.route.network)) in shown]
        end = _outside_end(row, host)
        found.append(
            Link(
                server=row.link_id,
                interface="",
                networks=tuple(map(str, row.their_networks)),
                offered=tuple(route_of(piece) for piece in offered),
                masquerade=row.masquerade,
                via=end.via,
                openvpn=end.openvpn,
                outside=True,
                shown=tuple(shown),
                there=bool(end.via),
            )
        )
    return found


def _outside_end(row: OutsideLink, host: Host) -> End:
    (place,) = carriers.outside_places([row])
    return _at(place, host, lambda: _openvpn(row, row.their_addresses, outside_links.keys_of(row)))
