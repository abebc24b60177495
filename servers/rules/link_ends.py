"""Where a link that OpenVPN carries can end: on hosts of its servers that these do not share, at a UDP port that
nobody else has on any that may listen. And each host leads to a server by one tunnel: what OpenVPN carries cannot be
told apart from what goes there by another link."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from django.db.models import Q

from servers.models import (
    Host,
    OutsideLink,
    Server,
    ServerHost,
    ServerLink,
    address_of,
    end_of_outside,
    ends_of,
)

from . import forward, mesh
from .link_ports import listens
from .registry import Mistake

NO_HOST = "is on no host, where its end of the link could be"


def of_link(link: ServerLink) -> Iterator[Mistake]:
    for mine, other in ((link.first, link.second), (link.second, link.first)):
        carried = mine.attachments.values_list("host", flat=True)
        if message := _by_two_ways(mine, other, carried, link):
            yield Mistake("second", message)
            return
    if not link.by_openvpn:
        return
    if link.names:
        yield Mistake("names", "Names of clients are known by WireGuard only: a link by OpenVPN does without.")
    hosts = {server: set(server.hosts.order_by("pk")) for server in (link.first, link.second)}
    for server, found in hosts.items():
        if not found:
            yield Mistake("carrier", f"Server {server} {NO_HOST}.")
            return
    if shared := set.intersection(*hosts.values()):
        where = min(shared, key=lambda host: host.name)
        yield Mistake("carrier", f"Both servers are on host {where}, which needs no OpenVPN between them.")
        return
    ends = ends_of(link)
    if ends is None:
        names = " and ".join(sorted(host.name for found in hosts.values() for host in found))
        yield Mistake("carrier", f"One of the hosts {names} needs a public address, where it listens.")
        return
    for row in ends[0]:
        if message := taken(row.host, link.port, link):
            yield Mistake("port", message)
            return


def of_outside(link: OutsideLink) -> Iterator[Mistake]:
    rows = end_of_outside(link)
    if not link.server.pk or not link.server.hosts.exists():
        yield Mistake("server", f"Server {link.server} {NO_HOST}.")
    elif not rows:
        yield Mistake("listens", f"No host of server {link.server} has a public address at which it could be found.")
    elif link.listens:
        found = (taken(row.host, link.port, link) for row in rows)
        if message := next((each for each in found if each), ""):
            yield Mistake("port", message)


def _by_two_ways(mine: Server, other: Server, hosts: Collection[int], link: ServerLink) -> str:
    """Whether one of the hosts (primary keys), that carry ``mine``, leads to ``other`` by the link of another server
    that it carries as well."""
    beside = ServerHost.objects.filter(host__in=hosts).exclude(server__in=[mine.pk, other.pk])
    for row in beside.select_related("server", "host").order_by("pk"):
        first, second = sorted((row.server_id, other.pk))
        known = ServerLink.objects.filter(first=first, second=second).first()
        if known is not None and (known.by_openvpn or link.by_openvpn):
            return (
                f"Host {row.host} carries servers {mine} and {row.server}, which would both be linked with server "
                f"{other}, not both by WireGuard: a host leads to a server by one tunnel."
            )
    return ""


def taken(host: Host, port: int, link: ServerLink | OutsideLink | None = None) -> str:
    """Who has the UDP port on that host; empty where nobody does. ``link`` is left out."""
    if server := Server.objects.filter(port=port, attachments__host=host).first():
        return f"UDP port {port} of host {host} is in use by server {server}."
    if message := mesh.of_port(port):
        return message
    if there := forward.of_port(host.pk, "udp", port):
        return f"UDP port {port} of host {host} is forwarded to {there.user}."
    return listens(host, port, link)


def of_attachment(server: Server, host: Host) -> str:
    """Why a server cannot come to a host."""
    if not server.pk:
        return ""
    every = list(_links(server))
    for link, other in every:
        if message := _by_two_ways(server, other, [host.pk], link):
            return message
        if link.by_openvpn and other.hosts.filter(pk=host.pk).exists():
            return f"Host {host} carries the server at the other end of the link between {link}."
    links: list[ServerLink | OutsideLink] = [link for link, _ in every if link.by_openvpn]
    links += [each for each in server.outside_links.all() if each.listens]
    return listens(host, server.port) or _own_ports(links, host, server)


def _own_ports(links: Iterable[ServerLink | OutsideLink], host: Host, server: Server) -> str:
    return next((each for link in links if (each := _at(link, host, server))), "")


def _at(link: ServerLink | OutsideLink, host: Host, server: Server) -> str:
    """The port that comes with the server, if it is to listen."""
    return taken(host, link.port, link) if address_of(host) and server.port != link.port else ""


def _links(server: Server) -> Iterator[tuple[ServerLink, Server]]:
    for link in ServerLink.objects.filter(Q(first=server) | Q(second=server)).select_related("first", "second"):
        yield link, link.other(server)
