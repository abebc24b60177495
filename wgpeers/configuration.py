"""What an allowed client is told: its address, the host, routes, DNS. docs/PROTOCOL.md has the keys."""

from __future__ import annotations

from typing import Any

from django.conf import settings

from servers import networks
from servers.checks import listed
from servers.models import Host, Server

from .models import Connection


def build(connection: Connection, server: Server, host: Host, host_public_key: str) -> dict[str, Any]:
    gateway = networks.address(server.wg_network, networks.GATEWAY_PART)
    gateway6 = networks.address(server.network6, networks.GATEWAY_PART) if server.ipv6 else ""
    routes = list(server.routes.order_by("network").values_list("network", flat=True))
    return {
        "address": networks.with_length(server.wg_network, connection.part),
        "address6": networks.with_length(server.network6, connection.part) if server.ipv6 else "",
        # Clients use "hostname:port" literally, so an IPv6-only host stands there in brackets.
        "hostname": host.public_address or f"[{host.public_address6}]",
        "hostname6": host.public_address6,
        "port": server.port,
        "public_key": host_public_key,
        "gateway": gateway,
        "gateway6": gateway6,
        "web_port": settings.GATEWAY_PORT,
        "web_no_ssl": True,
        "ping_interval": server.ping_interval,
        "ping_timeout": server.ping_timeout,
        "mtu": server.mtu,
        "routes": _routes([server.wg_network, *routes], 4, gateway),
        "routes6": _routes([server.network6, *routes], 6, gateway6) if server.ipv6 else [],
        "dns_servers": listed(server.dns_servers),
        "search_domains": listed(server.search_domains),
        "network_links": [],
        "network_links6": [],
    }


def _routes(texts: list[str], version: int, gateway: str) -> list[dict[str, Any]]:
    return [
        {"network": text, "next_hop": gateway, "metric": 0, "net_gateway": False}
        for text in texts
        if networks.parse(text).version == version
    ]
