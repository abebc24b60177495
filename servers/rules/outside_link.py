"""What a link to another installation cannot be."""

from __future__ import annotations

from collections.abc import Iterator

from django.core.exceptions import ValidationError

from servers import networks, routing
from servers.hostnet.state.openvpn import MOST_ADDRESSES
from servers.models import OutsideLink, Server, ServerHost, with_linked
from servers.networks import Network
from servers.validators import host_address4, host_address6, listed

from . import host_networks, link, link_ends, mesh, outside_networks
from .registry import Mistake, rule


@rule(OutsideLink)
def check(row: OutsideLink) -> Iterator[Mistake]:
    server: Server | None = getattr(row, "server", None)
    if server is None:
        return  # missing, which the field says by itself
    yield from _ours(row, server)
    yield from _theirs(row, server)
    yield from _addresses(row)
    yield from link_ends.of_outside(row)


def _ours(row: OutsideLink, server: Server) -> Iterator[Mistake]:
    offered = routing.offered(server)
    for text in listed(row.ours):
        if text not in offered:
            yield Mistake("ours", f"{text} is none of server {server}'s networks that can be offered.")


def _theirs(row: OutsideLink, server: Server) -> Iterator[Mistake]:
    found: list[Network] = []
    for text in listed(row.theirs):
        try:
            network = networks.parse(text)
        except ValidationError as error:
            yield Mistake("theirs", error.messages[0])
            continue
        if message := _cannot_be_there(network, server) or _beside(network, found) or _taken(row, server, network):
            yield Mistake("theirs", message)
        found.append(network)


def _cannot_be_there(network: Network, server: Server) -> str | None:
    if not network.prefixlen:
        return "Everything cannot be at the other end. Name the networks that are."
    if network.version == 6 and not server.ipv6:
        return f"{network}: server {server} has no IPv6; turn it on first."
    special = network.is_loopback or network.is_multicast or network.is_link_local or network.is_unspecified
    if special or (network.version == 4 and network.network_address.packed[0] == 0):
        return f"{network} cannot be routed."
    return None


def _beside(network: Network, others: list[Network]) -> str | None:
    met = next((each for each in others if networks.overlaps(network, each)), None)
    return f"{network} overlaps {met}, which is named as well." if met is not None else None


def _taken(row: OutsideLink, server: Server, network: Network) -> str | None:
    """Who has the network, or part of it, already: all servers' tunnels, and what the host leads to."""
    for other in Server.objects.order_by("pk"):
        for tunnel in routing.tunnel_networks([other]):
            if networks.overlaps(network, tunnel):
                return f"{network} overlaps {tunnel}, the tunnel network of server {other} here."
    hosts = list(server.attachments.values_list("host", flat=True)) if server.pk else []
    for near in _near(hosts, server):
        for claim in link.claims(near):
            if networks.overlaps(network, claim.network) and not (claim.left_out and near != server):
                return f"{network} overlaps {claim.words} of server {near} here."
    for address in row.their_addresses if not row.listens else ():
        if host_networks.holds(network, address):
            return f"{network} holds {address}, where they listen: the tunnel would go through itself."
    return (
        mesh.overlapped(network)
        or outside_networks.on_hosts(hosts, network, apart_from=row)
        or host_networks.at_outside(network, server)
    )


def _near(hosts: list[int], server: Server) -> list[Server]:
    """The servers whose networks a host of ``server`` leads to: those it carries, and those that these are linked
    with."""
    carried = set(ServerHost.objects.filter(host__in=hosts).values_list("server", flat=True)) | {server.pk}
    keys = {each for every in with_linked(carried).values() for each in every}
    return list(Server.objects.filter(pk__in=keys).order_by("name"))


def _addresses(row: OutsideLink) -> Iterator[Mistake]:
    if row.listens:
        return
    if not row.their_addresses:
        yield Mistake("addresses", "Say where they listen.")
    if len(row.their_addresses) > MOST_ADDRESSES:
        yield Mistake("addresses", f"Not more than {MOST_ADDRESSES} addresses.")
        return
    for address in row.their_addresses:
        try:
            (host_address6 if ":" in address else host_address4)(address)
        except ValidationError as error:
            yield Mistake("addresses", error.messages[0])


def of_attachment(server: Server, host: int) -> str | None:
    """Why a server cannot come to a host (primary key): for the networks at the other ends of links there, or at those
    of its own."""
    if not server.pk:
        return None
    for each in Server.objects.filter(pk__in=with_linked([server.pk])[server.pk]):
        for claim in link.claims(each):
            if met := outside_networks.on_hosts([host], claim.network):
                return met
    for row in server.outside_links.all():
        for network in row.their_networks:
            for near in _near([host], server):
                for claim in link.claims(near):
                    if networks.overlaps(network, claim.network):
                        return f"{network}, at the other end of the link to {row}, overlaps {claim.words} of {near}."
    return None
