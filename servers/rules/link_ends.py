"""Where a link that OpenVPN carries can end: on the one host of each of its servers, at a UDP port that nobody else
has there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from django.db.models import Q

from servers.models import Host, OutsideLink, Server, ServerHost, ServerLink, address_of, ends_of

from . import forward, mesh
from .link_ports import listens
from .registry import Mistake

ONE_HOST = "a link that OpenVPN carries ends on one host, and clients on others would not reach it"


def of_link(link: ServerLink) -> Iterator[Mistake]:
    if not link.by_openvpn:
        return
    if link.names:
        yield Mistake("names", "Names of clients are known by WireGuard only: a link by OpenVPN does without.")
    hosts = {server: list(server.hosts.order_by("pk")) for server in (link.first, link.second)}
    for server, found in hosts.items():
        if len(found) != 1:
            yield Mistake("carrier", f"Server {server} is on {len(found)} hosts: {ONE_HOST}.")
            return
    first, second = (found[0] for found in hosts.values())
    if first == second:
        yield Mistake("carrier", f"Both servers are on host {first}, which needs no OpenVPN between them.")
        return
    ends = ends_of(link)
    if ends is None:
        yield Mistake("carrier", f"One of the hosts {first} and {second} needs a public address, where it listens.")
    elif message := taken(ends[0], link.port, link):
        yield Mistake("port", message)


def of_outside(link: OutsideLink) -> Iterator[Mistake]:
    hosts = list(link.server.hosts.order_by("pk")) if link.server.pk else []
    if len(hosts) != 1:
        yield Mistake("server", f"Server {link.server} is on {len(hosts)} hosts: {ONE_HOST}.")
    elif link.listens and not address_of(hosts[0]):
        yield Mistake("listens", f"Host {hosts[0]} has no public address at which it could be found.")
    elif link.listens and (message := taken(hosts[0], link.port, link)):
        yield Mistake("port", message)


def taken(host: Host, port: int, link: ServerLink | OutsideLink | None = None) -> str:
    """Who has the UDP port on that host; empty where nobody does. ``link`` is left out."""
    if server := Server.objects.filter(port=port, attachments__host=host).first():
        return f"UDP port {port} of host {host} is in use by server {server}."
    if message := mesh.of_port(port):
        return message
    if there := forward.of_port(host.pk, "udp", port):
        return f"UDP port {port} of host {host} is forwarded to {there.user}."
    return listens(host, port, link)


def second_host(attachment: ServerHost, server: Server, host: Host) -> str:
    """Why a server cannot come to a host (or to one more)."""
    if not server.pk:
        return ""
    links = [link for link, _ in _links(server) if link.by_openvpn]
    outside = list(server.outside_links.all())
    if (links or outside) and server.attachments.exclude(pk=attachment.pk).exists():
        return f"Server {server} is linked by OpenVPN: {ONE_HOST}."
    for link in links:
        if link.other(server).hosts.filter(pk=host.pk).exists():
            return f"Host {host} carries the server at the other end of the link between {link}."
    listening: list[ServerLink | OutsideLink] = [*links, *(each for each in outside if each.listens)]
    return listens(host, server.port) or _own_ports(listening, host, server)


def _own_ports(links: Iterable[ServerLink | OutsideLink], host: Host, server: Server) -> str:
    return next((each for link in links if (each := _at(link, host, server))), "")


def _at(link: ServerLink | OutsideLink, host: Host, server: Server) -> str:
    """The port that comes with the server, if it is to listen."""
    return taken(host, link.port, link) if address_of(host) and server.port != link.port else ""


def _links(server: Server) -> Iterator[tuple[ServerLink, Server]]:
    for link in ServerLink.objects.filter(Q(first=server) | Q(second=server)).select_related("first", "second"):
        yield link, link.other(server)
