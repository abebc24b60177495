"""What the hosts have themselves, and no tunnel may take the place of: their LANs, their uplinks, their routers, their
own addresses. A host reports them (``hostnet.state.host_networks``); of one that has not yet, only its public addresses
are known, and the host itself refuses the tunnel."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from django.core.exceptions import ValidationError

from servers import networks
from servers.hostnet.state import MESH_PREFIX
from servers.hostnet.state.host_networks import Kind, met_by
from servers.models import Host, Server, linked_with
from servers.networks import Network

from .registry import Mistake


def of_server(server: Server) -> Iterator[Mistake]:
    """Its tunnel networks, on the hosts that it is attached to."""
    if not server.pk:
        return
    for attachment in server.attachments.select_related("host"):
        for field, network in _tunnels(server):
            if clash := _clash(network, attachment.host):
                message = f"{network} overlaps {clash}. Choose another network, or take the server off that host"
                yield Mistake(field, f"{message} (on the host's page).")
    for other in linked_with(server):
        for field, network in _tunnels(server):
            if clash := _clash_on_hosts(network, other):
                yield Mistake(field, f"{network} overlaps {clash}, which carries server {other}, linked with this one.")


def at_linked(server: Server, other: Server) -> str | None:
    """Why two servers cannot be linked: what of the first one's networks a host of the other has itself. It would send
    there what is for its own."""
    for _, network in _tunnels(server):
        if clash := _clash_on_hosts(network, other):
            return f"{network} of server {server} overlaps {clash}, which carries server {other}."
    for text in server.client_networks.order_by("network").values_list("network", flat=True):
        if held := _held_by_hosts(text, other):
            return f"{text} behind a client of server {server} is in {held}: the host has it itself."
    return None


def at_outside(network: Network, server: Server) -> str | None:
    """Why ``network`` cannot be at the other end of a link of ``server``: what its host has itself, or where it finds
    the other machines."""
    if server.pk and (clash := _clash_on_hosts(network, server)):
        return f"{network} overlaps {clash}."
    for host in Host.objects.order_by("pk"):
        for address in (host.public_address, host.public_address6):
            if holds(network, address):
                return f"{network} holds {address}, the public address of host {host}."
    return None


def _clash_on_hosts(network: Network, server: Server) -> str | None:
    hosts = Host.objects.filter(attachments__server=server)
    return next((clash for host in hosts if (clash := _clash(network, host))), None)


def _held_by_hosts(text: str, server: Server) -> str | None:
    """What of its own a host of ``server`` has that ``text`` is, or is a part of."""
    network = networks.parse(text)
    for host in Host.objects.filter(attachments__server=server):
        for each in host.own_networks():
            if each.kind is Kind.ATTACHED and networks.within(network, networks.parse(each.network)):
                return f"{each} of host {host}"
    return None


def of_attachment(server: Server, host: Host) -> Iterator[Mistake]:
    """A server that comes to a host, either of which may be new."""
    for _, network in _tunnels(server):
        if clash := _clash(network, host):
            yield Mistake("host", f"{network} of server {server} overlaps {clash}.")
    for row in server.outside_links.all() if server.pk else ():
        for network in row.their_networks:
            if clash := _clash(network, host):
                yield Mistake("host", f"{network}, at the other end of the link to {row}, overlaps {clash}.")


def of_host(host: Host) -> Iterator[Mistake]:
    """The public addresses of a host, as they are to be."""
    if not host.pk:
        return
    for attachment in host.attachments.select_related("server"):
        for _, network in _tunnels(attachment.server):
            for field in ("public_address", "public_address6"):
                if holds(network, getattr(host, field)):
                    message = f"{getattr(host, field)} is in {network}, a tunnel network of server {attachment.server}"
                    yield Mistake(field, f"{message} on this host.")


def of_client(text: str, server: Server) -> Iterator[Mistake]:
    """A network behind a client. It may hold a LAN of the host, which keeps its own longer route, but be none, nor a
    part of one."""
    try:
        network = networks.parse(text)
    except ValidationError:
        return  # its rule says so
    if not server.pk:
        return
    # A host of a linked server sends there too what is for the client's network.
    for each in (server, *linked_with(server)):
        if held := _held_by_hosts(text, each):
            yield Mistake("network", f"{network} is in {held}: the host has it itself.")
            return


def _tunnels(server: Server) -> Iterator[tuple[str, Network]]:
    """What is wrong in the same form is left out."""
    for field in ("wg_network", "network6") if server.ipv6 else ("wg_network",):
        try:
            yield field, networks.parse(getattr(server, field))
        except ValidationError:
            continue


def clash_of_mesh(network: Network) -> str | None:
    """What the mesh's network overlaps on any machine."""
    found = (_clash(network, host, without_mesh=True) for host in Host.objects.order_by("pk"))
    return next((each for each in found if each), None)


def _clash(network: Network, host: Host, *, without_mesh: bool = False) -> str | None:
    """``without_mesh``: leave out what the machine has by the mesh."""
    there = [each for each in host.own_networks() if not (without_mesh and each.link.startswith(MESH_PREFIX))]
    if met := met_by(network, there):
        return f"{met} of host {host}"
    for address in (host.public_address, host.public_address6):
        if holds(network, address):
            return f"{address}, the public address of host {host}"
    return None


def holds(network: Network, text: str) -> bool:
    """Whether an address is in it; a name is not."""
    try:
        return ipaddress.ip_address(text) in network
    except ValueError:
        return False  # a name, or none
