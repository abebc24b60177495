"""What an allowed client is told: its address, the host, routes, DNS. docs/PROTOCOL.md has the keys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from servers import networks, routing
from servers.models import Host, Route, Server
from servers.validators import listed
from wgpeers.fleet import links
from wgpeers.models import Connection


@dataclass(frozen=True, slots=True)
class Pushed:
    """A network that a client is told of; ``net_gateway``: not to send through the tunnel."""

    network: networks.Network
    metric: int = 0
    net_gateway: bool = False


def build(
    connection: Connection,
    server: Server,
    host: Host,
    host_public_key: str,
    now: float,
    *,
    rows: Sequence[Route],
    server_has_networks: bool = True,
    server_is_linked: bool = True,
) -> dict[str, Any]:
    """``rows`` are the server's routes. ``server_has_networks`` False: no client of the server has networks behind it,
    so none are looked up; ``server_is_linked`` likewise."""
    gateway = networks.address(server.wg_network, networks.GATEWAY_HOST_PART)
    gateway6 = networks.address(server.network6, networks.GATEWAY_HOST_PART) if server.ipv6 else ""
    behind_me, behind_others = _client_networks(connection, server) if server_has_networks else ([], [])
    neighbours = links.neighbours_of([server])[server.pk] if server_is_linked else []
    linked = [*_of_linked(neighbours, host), *_of_outside(server)] if server_is_linked else []
    pushed = _pushed(server, rows, behind_others, linked)
    return {
        "address": networks.with_length(server.wg_network, connection.host_part),
        "address6": networks.with_length(server.network6, connection.host_part) if server.ipv6 else "",
        "hostname": _endpoint(host, connection.client_address),
        "hostname6": host.public_address6,
        "port": server.port,
        "public_key": host_public_key,
        "gateway": gateway,
        "gateway6": gateway6,
        "web_port": settings.GATEWAY_PORT,
        "web_no_ssl": True,
        "ping_interval": server.ping_interval,
        "ping_timeout": server.ping_timeout,
        "session_left": _session_left(connection, now),
        "mtu": server.mtu,
        "routes": _routes(pushed, 4, gateway),
        "routes6": _routes(pushed, 6, gateway6) if server.ipv6 else [],
        "dns_servers": _dns_servers(server, gateway, gateway6),
        "search_domains": listed(server.search_domains),
        "routing_domains": _routing_domains(server, neighbours),
        "network_links": [str(network) for network in behind_me if network.version == 4],
        "network_links6": [str(network) for network in behind_me if network.version == 6] if server.ipv6 else [],
    }


def _endpoint(host: Host, client_address: str | None) -> str:
    """The host's address in the family by which the client's request came, if it has one there: a client that has IPv6
    alone reaches no other. Clients use "hostname:port" literally, so an IPv6 address stands in brackets."""
    by_ipv6 = ":" in (client_address or "")
    if host.public_address6 and (by_ipv6 or not host.public_address):
        return f"[{host.public_address6}]"
    return host.public_address


def _session_left(connection: Connection, now: float) -> int:
    """For how many seconds the connection may last, whatever its pings say; 0: without end. Of the time left, since
    clients' clocks may say anything."""
    return max(1, math.floor(connection.session_ends.timestamp() - now)) if connection.session_ends else 0


def _dns_servers(server: Server, *gateways: str) -> list[str]:
    """With names for clients, the host's own resolver, which asks the server's DNS servers for all else."""
    return [each for each in gateways if each] if server.dns_mapping else listed(server.dns_servers)


def _routing_domains(server: Server, neighbours: Sequence[links.Neighbour]) -> list[str]:
    """Domains whose names are to be asked of ``dns_servers`` only, without being tried behind short names."""
    domains = listed(server.routing_domains)
    if server.dns_mapping:
        domains += [server.dns_zone, *server.split_domains.values_list("domain", flat=True)]
        domains += [zone for each in neighbours if (zone := each.zone_for(server))]
    return list(dict.fromkeys(domain.lower() for domain in domains))


def _of_linked(neighbours: Sequence[links.Neighbour], host: Host) -> list[Pushed]:
    """What links lead to from ``host``."""
    carried = set(host.attachments.values_list("server", flat=True)) if neighbours else set()
    found: list[Pushed] = []
    for each in neighbours:
        found += [Pushed(network) for network in (*each.tunnels, *each.behind)]
        reached = each.routed if each.server.pk in carried else links.by_another(each, host)
        found += [Pushed(piece.network, piece.route.metric) for piece in reached]
    return found


def _of_outside(server: Server) -> list[Pushed]:
    """What is reached in other installations, where these may know of this server's clients."""
    found = []
    for row in links.works_outside(server):
        versions = {each.version for each in routing.tunnel_networks([server]) if each in row.our_networks}
        found += [Pushed(network) for network in row.their_networks if network.version in versions]
    return found


def _pushed(
    server: Server, rows: Sequence[Route], behind_others: list[networks.Network], linked: Sequence[Pushed]
) -> list[Pushed]:
    """Everything that goes through the tunnel, the tunnel network first and always; and what does not, which clients
    that know no such entries find left out of the rest."""
    holes = routing.left_out(rows)
    pushed = [Pushed(network) for network in routing.tunnel_networks([server])]
    pushed += [Pushed(piece.network, piece.route.metric) for piece in routing.routed(rows)]
    known = {each.network for each in pushed}
    pieces = (piece for network in behind_others for piece in networks.subtract(network, holes))
    pushed += [Pushed(piece) for piece in pieces if piece not in known]
    pushed += linked
    return pushed + [Pushed(hole, net_gateway=True) for hole in sorted(holes, key=str)]


def _client_networks(connection: Connection, server: Server) -> tuple[list[networks.Network], list[networks.Network]]:
    """Networks behind this client, whether it serves them now or stands by; and those behind other clients only. A
    client reaches what is behind itself without the tunnel."""
    rows = list(server.client_networks.order_by("network").values_list("network", "user_id"))
    mine = {network for network, user in rows if user == connection.user_id}
    others = {network for network, _ in rows} - mine
    return [networks.parse(text) for text in sorted(mine)], [networks.parse(text) for text in sorted(others)]


def _routes(pushed: list[Pushed], version: int, gateway: str) -> list[dict[str, Any]]:
    return [
        {
            "network": str(each.network),
            "next_hop": gateway,
            "metric": each.metric,
            "net_gateway": each.net_gateway,
        }
        for each in pushed
        if each.network.version == version
    ]
