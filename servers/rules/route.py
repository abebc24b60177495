"""Which routes cannot work, by themselves and beside each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from django.core.exceptions import ValidationError

from servers import networks
from servers.models import Route, Server
from servers.networks import Network
from servers.routing import tunnel_networks

from .registry import rule


@rule(Route)
def check(route: Route) -> None:
    """Raise ``ValidationError`` with a message at the field that must change."""
    network = _network(route)
    if network is None:
        return  # missing, which the field says by itself
    if network.version == 6 and not route.server.ipv6:
        raise ValidationError({"network": "This server has no IPv6; turn it on first."})
    if not _routable(network):
        raise ValidationError({"network": f"{network} cannot be routed."})
    for own in tunnel_networks([route.server]):
        if networks.within(network, own):
            message = "The server's own tunnel network is always routed"
            raise ValidationError(
                {
                    "network": f"{message} and cannot be left out."
                    if route.net_gateway
                    else f"{message}; it needs no route."
                }
            )
    if route.net_gateway:
        _left_out(route, network)
    else:
        _through(route, network)
    if route.server.pk:
        decided = getattr(route, "decided_with", ())
        others = route.server.routes.exclude(pk=route.pk).exclude(pk__in=decided)
        beside(route, others)
        _behind_clients(route, network)


def _behind_clients(route: Route, network: Network) -> None:
    for row in route.server.client_networks.select_related("user"):
        behind = networks.parse(row.network)
        if behind == network:
            message = f"{network} is behind {row.user}: it cannot be behind this server's hosts as well."
            raise ValidationError({"network": message})
        if route.netmap and networks.overlaps(behind, network):
            raise ValidationError({"network": f"{network} overlaps {behind} behind {row.user}; it cannot be mapped."})
        if route.net_gateway and networks.within(behind, network):
            raise ValidationError({"network": f"Nothing would remain of {behind} behind {row.user}."})


def _network(route: Route) -> Network | None:
    """The route's network; it and the netmap are both readable then."""
    if not route.network:
        return None
    found = {}
    for field in ("network", "netmap"):
        if text := getattr(route, field):
            try:
                found[field] = networks.parse(text)
            except ValidationError as error:
                raise ValidationError({field: error.messages}) from None
    return found["network"]


def _routable(network: Network) -> bool:
    return not (network.prefixlen and (network.is_loopback or network.is_multicast or network.is_link_local))


def _left_out(route: Route, network: Network) -> None:
    if not network.prefixlen:
        raise ValidationError({"network": "Without everything, nothing would go through the tunnel."})
    for field in ("nat_interface", "netmap"):
        if getattr(route, field):
            raise ValidationError(
                {field: "What does not go through the tunnel never reaches a host: leave this empty."}
            )


def _through(route: Route, network: Network) -> None:
    if route.nat_interface and not route.nat:
        raise ValidationError({"nat_interface": "NAT is off: turn it on, or leave this empty."})
    if route.netmap:
        _netmap(route, network, networks.parse(route.netmap))


def _netmap(route: Route, network: Network, real: Network) -> None:
    if real.version != network.version:
        raise ValidationError({"netmap": f"{real} and {network} are not of one family: both IPv4, or both IPv6."})
    if real.prefixlen != network.prefixlen:
        message = f"It must be a /{network.prefixlen} like {network}: each address has its own counterpart."
        raise ValidationError({"netmap": message})
    if not network.prefixlen:
        raise ValidationError({"netmap": "Everything cannot be mapped; give a network."})
    if real == network:
        raise ValidationError({"netmap": f"Clients know {real} by itself already: leave this empty."})
    if not _routable(real):
        raise ValidationError({"netmap": f"{real} cannot be routed."})
    for field, mine in (("network", network), ("netmap", real)):
        if clash := _tunnel_in_the_way(route.server, mine):
            raise ValidationError({field: f"{mine} overlaps {clash}; it cannot be mapped."})


def _tunnel_in_the_way(server: Server, network: Network) -> str | None:
    """The tunnel network, of whichever server, that ``network`` overlaps."""
    for other in [server, *Server.objects.exclude(pk=server.pk)]:
        for tunnel in tunnel_networks([other]):
            if networks.overlaps(tunnel, network):
                return f"the tunnel network {tunnel} of server {other}"
    return None


def beside(route: Route, others: Iterable[Route]) -> None:
    """Whether ``route``, right by itself, goes together with other routes of its server, which are right too."""
    mine = networks.parse(route.network)
    for other in others:
        network = networks.parse(other.network)
        if other.net_gateway != route.net_gateway:
            _covered(route, mine, other, network)
        elif not route.net_gateway:
            _mapped_apart(route, mine, other, network)


def _covered(route: Route, mine: Network, other: Route, network: Network) -> None:
    if route.net_gateway and networks.within(network, mine):
        raise ValidationError({"network": f"Nothing would remain of the route to {network}."})
    if other.net_gateway and networks.within(mine, network):
        message = f"{mine} lies within {network}, which does not go through the tunnel: nothing would remain of it."
        raise ValidationError({"network": message})


def _mapped_apart(route: Route, mine: Network, other: Route, network: Network) -> None:
    """Two aliases must be apart; so must two networks that stand behind them, or packets from there would have two
    names. Another route may hold an alias, as 0.0.0.0/0 does, but not lie in it."""
    if mine.version != network.version:
        return
    if route.netmap and other.netmap:
        if networks.overlaps(mine, network):
            raise ValidationError({"network": f"{mine} overlaps {network}, which stands for {other.netmap}."})
        if networks.overlaps(networks.parse(route.netmap), other.netmap):
            message = f"{route.netmap} overlaps {other.netmap}, which clients know as {network} already."
            raise ValidationError({"netmap": message})
    elif route.netmap and networks.within(network, mine):
        raise ValidationError(
            {"network": f"{network}, a route of its own, lies within {mine}, which stands for {route.netmap}."}
        )
    elif other.netmap and networks.within(mine, network):
        raise ValidationError({"network": f"{mine} lies within {network}, which stands for {other.netmap}."})


def together(rows: Sequence[Route]) -> Iterator[tuple[Route, ValidationError]]:
    """The rows of one form that do not go together, each with the reason."""
    for number, row in enumerate(rows):
        try:
            beside(row, rows[:number])
        except ValidationError as error:
            yield row, error
