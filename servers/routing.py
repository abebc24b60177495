"""What hosts and clients get of a server's routes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from django.core.exceptions import ValidationError

from . import networks
from .models import Route, Server
from .networks import Network


@dataclass(frozen=True, slots=True)
class Routed:
    """One piece of a route, after what does not go through the tunnel was taken out of it. ``real`` is the network
    that stands behind it one to one, or None."""

    network: Network
    real: Network | None
    route: Route


def routed(routes: Iterable[Route]) -> list[Routed]:
    """What of a server's routes goes through the tunnel, each network once.

    Where two routes leave the same piece (10.0.0.0/8 and 0.0.0.0/0, both without 10.1.0.0/16) it is the longer
    route's: that is the one that would have decided there.
    """
    rows = list(routes)
    holes = left_out(rows)
    pieces: dict[Network, Routed] = {}
    whole = [(networks.parse(row.network), row) for row in rows if not row.net_gateway]
    for network, row in sorted(whole, key=lambda pair: -pair[0].prefixlen):
        real = networks.parse(row.netmap) if row.netmap else None
        for piece in networks.subtract(network, holes):
            behind = networks.same_place(piece, network, real) if real else None
            pieces.setdefault(piece, Routed(piece, behind, row))
    return sorted(pieces.values(), key=lambda each: (each.network.version, each.network))


def for_linked(routes: Iterable[Route]) -> list[Routed]:
    """What of a server's routes clients of a linked one reach. A route to everything is for its own clients alone: a
    link leads to networks."""
    return [piece for piece in routed(routes) if networks.parse(piece.route.network).prefixlen]


def offered(server: Server) -> dict[str, str]:
    """What of a server's networks another installation can be offered, as text, with what each is. Of mapped ones it is
    what clients know them by."""
    found = {str(each): "clients" for each in tunnel_networks([server])}
    if not server.pk:
        return found
    for row in server.client_networks.select_related("user").order_by("network"):
        found.setdefault(row.network, f"behind {row.user}")
    for route in server.routes.filter(net_gateway=False).order_by("network"):
        if networks.parse(route.network).prefixlen:
            found.setdefault(route.network, "mapped route" if route.netmap else "route")
    return found


def left_out(routes: Iterable[Route]) -> list[Network]:
    """The networks that do not go through the tunnel."""
    return [networks.parse(row.network) for row in routes if row.net_gateway]


def tunnel_networks(servers: Iterable[Server]) -> Iterator[Network]:
    """What may still be wrong in the same form is left out."""
    for server in servers:
        for text in (server.wg_network, server.network6 if server.ipv6 else ""):
            try:
                yield networks.parse(text)
            except ValidationError:
                continue
