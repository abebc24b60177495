"""Which routes cannot work, by themselves and beside each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from django.core.exceptions import ValidationError

from servers import networks
from servers.models import Route, Server
from servers.networks import Network
from servers.routing import tunnel_networks

from . import behind, link, registry
from .registry import Finding, Mistake, Oddity, rule

TUNNEL_OF_ANOTHER = "tunnel_of_another_server"


@rule(Route)
def check(route: Route) -> Iterator[Finding]:
    found = [*_unreadable(route)]
    yield from found
    if found or not route.network:
        return  # missing, which the field says by itself
    network = networks.parse(route.network)
    found = [*_cannot_be_routed(route, network)]
    found += _left_out(route, network) if route.net_gateway else _through(route, network)
    found += _of_linked(route, network)
    yield from found
    if any(each.field == "network" for each in found):
        return
    if not route.net_gateway:
        yield from _to_other_tunnels(route, network)
    if route.server.pk:
        decided = getattr(route, "decided_with", ())
        others = route.server.routes.exclude(pk=route.pk).exclude(pk__in=decided)
        yield from beside(route, others)
        yield from _behind_clients(route, network)


def _cannot_be_routed(route: Route, network: Network) -> Iterator[Mistake]:
    if network.version == 6 and not route.server.ipv6:
        yield Mistake("network", "This server has no IPv6; turn it on first.")
    elif not _routable(network):
        yield Mistake("network", f"{network} cannot be routed.")
    elif any(networks.within(network, own) for own in tunnel_networks([route.server])):
        message = "The server's own tunnel network is always routed"
        left_out = " and cannot be left out." if route.net_gateway else "; it needs no route."
        yield Mistake("network", f"{message}{left_out}")


def _of_linked(route: Route, network: Network) -> Iterator[Mistake]:
    """Everything may lie around what a link leads to; nothing else may meet it."""
    if not route.server.pk or not network.prefixlen:
        return
    message = link.taken(route.server, network, left_out=route.net_gateway)
    if message is None and not route.net_gateway:
        message = link.elsewhere(behind.Behind(route.server.pk, network, str(network), route=True))
    if message:
        yield Mistake("network", message)
    if route.netmap and (clash := link.taken(route.server, networks.parse(route.netmap))):
        yield Mistake("netmap", clash)


def _to_other_tunnels(route: Route, network: Network) -> Iterator[Oddity]:
    """Whoever routes into another server's tunnel reaches its clients, where it is on the same host; its network
    cannot be a LAN as well."""
    for other in Server.objects.exclude(pk=route.server.pk):
        for tunnel in tunnel_networks([other]):
            if networks.within(network, tunnel):
                where = "is" if network == tunnel else f"is in {tunnel},"
                message = f"{network} {where} the tunnel network of server {other}: no LAN can be reached there."
                yield Oddity("network", message, TUNNEL_OF_ANOTHER, str(network))


def _behind_clients(route: Route, network: Network) -> Iterator[Mistake]:
    for row in route.server.client_networks.select_related("user"):
        behind = networks.parse(row.network)
        if behind == network:
            yield Mistake(
                "network", f"{network} is behind {row.user}: it cannot be behind this server's hosts as well."
            )
        elif route.netmap and networks.overlaps(behind, network):
            yield Mistake("network", f"{network} overlaps {behind} behind {row.user}; it cannot be mapped.")
        elif route.net_gateway and networks.within(behind, network):
            yield Mistake("network", f"Nothing would remain of {behind} behind {row.user}.")


def _unreadable(route: Route) -> Iterator[Finding]:
    for field in ("network", "netmap"):
        if text := getattr(route, field):
            try:
                networks.parse(text)
            except ValidationError as error:
                yield Mistake(field, error.messages[0])


def _routable(network: Network) -> bool:
    return not (network.prefixlen and (network.is_loopback or network.is_multicast or network.is_link_local))


def _left_out(route: Route, network: Network) -> Iterator[Mistake]:
    if not network.prefixlen:
        yield Mistake("network", "Without everything, nothing would go through the tunnel.")
    for field in ("nat_interface", "netmap"):
        if getattr(route, field):
            yield Mistake(field, "What does not go through the tunnel never reaches a host: leave this empty.")


def _through(route: Route, network: Network) -> Iterator[Mistake]:
    if route.nat_interface and not route.nat:
        yield Mistake("nat_interface", "NAT is off: turn it on, or leave this empty.")
    if not route.netmap:
        return
    real = networks.parse(route.netmap)
    if message := _cannot_stand_behind(network, real):
        yield Mistake("netmap", message)
        return
    for field, mine in (("network", network), ("netmap", real)):
        if clash := _tunnel_in_the_way(route.server, mine):
            yield Mistake(field, f"{mine} overlaps {clash}; it cannot be mapped.")


def _cannot_stand_behind(network: Network, real: Network) -> str | None:
    if real.version != network.version:
        return f"{real} and {network} are not of one family: both IPv4, or both IPv6."
    if real.prefixlen != network.prefixlen:
        return f"It must be a /{network.prefixlen} like {network}: each address has its own counterpart."
    if not network.prefixlen:
        return "Everything cannot be mapped; give a network."
    if real == network:
        return f"Clients know {real} by itself already: leave this empty."
    return None if _routable(real) else f"{real} cannot be routed."


def _tunnel_in_the_way(server: Server, network: Network) -> str | None:
    """The tunnel network, of whichever server, that ``network`` overlaps."""
    for other in [server, *Server.objects.exclude(pk=server.pk)]:
        for tunnel in tunnel_networks([other]):
            if networks.overlaps(tunnel, network):
                return f"the tunnel network {tunnel} of server {other}"
    return None


def beside(route: Route, others: Iterable[Route]) -> Iterator[Mistake]:
    """Whether ``route``, right by itself, goes together with other routes of its server, which are right too."""
    mine = networks.parse(route.network)
    for other in others:
        network = networks.parse(other.network)
        if other.net_gateway != route.net_gateway:
            yield from _covered(route, mine, other, network)
        elif not route.net_gateway:
            yield from _mapped_apart(route, mine, other, network)


def _covered(route: Route, mine: Network, other: Route, network: Network) -> Iterator[Mistake]:
    if route.net_gateway and networks.within(network, mine):
        yield Mistake("network", f"Nothing would remain of the route to {network}.")
    if other.net_gateway and networks.within(mine, network):
        message = f"{mine} lies within {network}, which does not go through the tunnel: nothing would remain of it."
        yield Mistake("network", message)


def _mapped_apart(route: Route, mine: Network, other: Route, network: Network) -> Iterator[Mistake]:
    """Two aliases must be apart; so must two networks that stand behind them, or packets from there would have two
    names. Another route may hold an alias, as 0.0.0.0/0 does, but not lie in it."""
    if mine.version != network.version:
        return
    if route.netmap and other.netmap:
        if networks.overlaps(mine, network):
            yield Mistake("network", f"{mine} overlaps {network}, which stands for {other.netmap}.")
        if networks.overlaps(networks.parse(route.netmap), other.netmap):
            message = f"{route.netmap} overlaps {other.netmap}, which clients know as {network} already."
            yield Mistake("netmap", message)
    elif route.netmap and networks.within(network, mine):
        message = f"{network}, a route of its own, lies within {mine}, which stands for {route.netmap}."
        yield Mistake("network", message)
    elif other.netmap and networks.within(mine, network):
        yield Mistake("network", f"{mine} lies within {network}, which stands for {other.netmap}.")


def together(rows: Sequence[Route]) -> Iterator[tuple[Route, ValidationError]]:
    """The rows of one form that do not go together, each with the reason."""
    for number, row in enumerate(rows):
        if found := list(beside(row, rows[:number])):
            yield row, registry.together(found)
