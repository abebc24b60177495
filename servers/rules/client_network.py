"""Which networks cannot be behind a client."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from django.core.exceptions import ValidationError

from servers import networks
from servers.access import servers_of
from servers.models import ClientNetwork, Server, linked_with
from servers.networks import Network
from users.models import VpnUser

from . import behind, host_networks, link, odd_networks
from .registry import Finding, Mistake, rule, save_rule


@rule(ClientNetwork)
def check(row: ClientNetwork) -> Iterator[Finding]:
    server: Server | None = getattr(row, "server", None)
    if server is None or not row.network:
        return  # missing, which the field says by itself
    try:
        network = networks.parse(row.network)
    except ValidationError as error:
        yield Mistake("network", error.messages[0])
        return
    yield from _user(row, server)
    if problem := _cannot_be_routed(network, server) or _taken(row, network, server):
        yield Mistake("network", problem)
    else:
        yield from odd_networks.of_client("network", network)
    yield from _probe(row, network, server)


@save_rule(ClientNetwork, "network", "server")
def not_the_hosts(row: ClientNetwork) -> Iterator[Mistake]:
    server: Server | None = getattr(row, "server", None)
    if server is not None and row.network:
        yield from host_networks.of_client(row.network, server)


def _user(row: ClientNetwork, server: Server) -> Iterator[Mistake]:
    user: VpnUser | None = getattr(row, "user", None)
    if user is None or not user.pk or not server.pk or servers_of(user).filter(pk=server.pk).exists():
        return
    # Whoever lost the server keeps the rows, for when they get it back: they are no reason to refuse another change.
    if not ClientNetwork.objects.filter(pk=row.pk, user=user, server=server).exists():
        yield Mistake("server", f"{user} may not use server {server}.")


def _cannot_be_routed(network: Network, server: Server) -> str | None:
    if network.version == 6 and not server.ipv6:
        return "This server has no IPv6; turn it on first."
    if network.prefixlen == 0:
        return "Everything cannot be behind one client. Name the networks that are."
    special = network.is_loopback or network.is_multicast or network.is_link_local or network.is_unspecified
    if special or (network.version == 4 and network.network_address.packed[0] == 0):
        return f"{network} cannot be routed."
    return None


def _taken(row: ClientNetwork, network: Network, server: Server) -> str | None:
    """Who has the network, or part of it, already; None if it may be behind this client."""
    for text in (server.network, server.wg_network, server.network6 if server.ipv6 else ""):
        if networks.overlaps(network, text):
            return f"{network} overlaps {text}, a network of this very server."
    for other in Server.objects.exclude(pk=server.pk):
        for text in (other.network, other.wg_network, other.network6 if other.ipv6 else ""):
            if networks.overlaps(network, text):
                return f"{network} overlaps {text} of server {other}."
    if not server.pk:
        return None  # new, in a form with its rows: nothing else is its yet
    if server.routes.filter(network=str(network)).exists():
        return f"This server has a route to {network}: it cannot be behind its hosts and behind a client as well."
    for route in server.routes.all():
        if route.net_gateway and networks.within(network, networks.parse(route.network)):
            return f"{network} lies within {route.network}, which does not go through the tunnel."
        if route.netmap and networks.overlaps(network, route.network):
            return f"{network} overlaps {route.network}, which stands for {route.netmap} on this server."
    return _behind_others(row, network, server) or link.taken(server, network)


def _behind_others(row: ClientNetwork, network: Network, server: Server) -> str | None:
    """Equal networks of one server are a primary and its standbys. Of two that merely overlap, nobody could say
    which gateway a packet is for when one of them falls silent. Another server's, on the same host, are in the same
    routing table."""
    for other in ClientNetwork.objects.filter(server=server).exclude(pk=row.pk).exclude(user=row.user_id):
        if other.network != str(network) and networks.overlaps(network, other.network):
            return (
                f"{network} overlaps {other.network} behind {other.user}. Users who serve the same network must name it"
                " alike."
            )
    return link.elsewhere(behind.Behind(server.pk, network, str(network)))


def overlapped(network: Network) -> str | None:
    """Why ``network`` cannot be a tunnel network of a server: a client's, of whichever server, that it overlaps."""
    for row in ClientNetwork.objects.select_related("user", "server"):
        if networks.overlaps(network, row.network):
            return f"{network} overlaps {row.network} behind {row.user}, a client of server {row.server}."
    return None


def clash_on_host(server: Server, host: int) -> str | None:
    """Why a server cannot come to a host (primary key) for the networks behind its clients and others' there."""
    if not server.pk:
        return None
    # With a server come those that it is linked with.
    coming = {server.pk, *(each.pk for each in linked_with(server))}
    if met := behind.clash(behind.of(coming), [host], coming, carried_too=server.pk):
        mine, other, where = met
        what = "of server" if other.route else "a client of server"
        return f"{mine.words} overlaps {other.words}, {what} {where} there."
    return None


def _probe(row: ClientNetwork, network: Network, server: Server) -> Iterator[Mistake]:
    if not row.probe_address:
        if row.probe_port:
            yield Mistake("probe_address", "Give the address of which this port is asked.")
        return
    try:
        address = ipaddress.ip_address(row.probe_address)
    except ValueError:
        return  # which the field says by itself
    if message := _cannot_be_probed(address, network) or (server.pk and _probe_of_another(row, str(address), server)):
        yield Mistake("probe_address", message)


def _cannot_be_probed(address: ipaddress.IPv4Address | ipaddress.IPv6Address, network: Network) -> str | None:
    if address.version != network.version:
        return f"{address} is of the other family than {network}."
    if address not in network:
        return f"{address} is not in {network}."
    if network.prefixlen == network.max_prefixlen:
        return f"{network} is this one address: one that stays with this gateway would be the whole network."
    if _first_or_last(address, network):
        return f"{address} is the network's first or last address; nothing has it."
    return None


def _probe_of_another(row: ClientNetwork, address: str, server: Server) -> str | None:
    """Two gateways cannot be asked by the same address: a packet to it goes to one of them."""
    others = (
        ClientNetwork.objects.filter(server=server, probe_address=address).exclude(pk=row.pk).exclude(user=row.user_id)
    )
    if other := others.first():
        return (
            f"{address} is the probe address of {other.user}. Each gateway needs its own, because it stays routed to "
            "its gateway whoever serves the network: only so can one that failed be seen to be well again."
        )
    return None


def _first_or_last(address: ipaddress.IPv4Address | ipaddress.IPv6Address, network: Network) -> bool:
    """The network's own address (in IPv6 that of any router), or the broadcast address of IPv4."""
    if network.prefixlen >= network.max_prefixlen - 1:
        return False
    if network.version == 4 and address == network.broadcast_address:
        return True
    return address == network.network_address
