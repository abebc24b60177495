"""What the mesh cannot be."""

from __future__ import annotations

from collections.abc import Iterator

from django.core.exceptions import ValidationError

from servers import mesh, networks
from servers.models import ClientNetwork, Mesh, MeshNode, PortForward, Route, Server

from . import host_networks, link_ports, outside_networks
from .registry import Mistake, rule


@rule(Mesh)
def check(row: Mesh) -> Iterator[Mistake]:
    try:
        if message := _wrong(mesh.usable(row.network)):
            yield Mistake("network", message)
    except ValidationError as error:
        yield Mistake("network", error.messages[0])
    if message := port_taken(row.port):
        yield Mistake("port", message)


def _wrong(network: networks.Network) -> str:
    highest = MeshNode.objects.order_by("-host_part").first()
    if highest is not None and highest.host_part > mesh.last_host_part(network):
        return f"{network} is too small: {highest.host} is machine {highest.host_part} of it."
    for server in Server.objects.all():
        for text in (server.network, server.wg_network, server.network6 if server.ipv6 else ""):
            if networks.overlaps(network, text):
                return f"{network} overlaps {text} of server {server}."
    for each in ClientNetwork.objects.select_related("server"):
        if networks.overlaps(network, each.network):
            return f"{network} overlaps {each.network}, which lies behind clients of server {each.server}."
    for route in Route.objects.exclude(network__in=("0.0.0.0/0", "::/0")).select_related("server"):
        for text in (route.network, route.netmap):
            if networks.overlaps(network, text):
                return f"{network} overlaps {text}, a route of server {route.server}."
    if met := outside_networks.anywhere(network):
        return met
    clash = host_networks.clash_of_mesh(network)
    return f"{network} overlaps {clash}." if clash else ""


def port_taken(port: int) -> str:
    """By a server, a link or a forwarded port, on whichever machine."""
    if server := Server.objects.filter(port=port).first():
        return f"UDP port {port} is in use by server {server}."
    forward = PortForward.objects.filter(protocol="udp", port=port).select_related("user").first()
    return f"UDP port {port} is forwarded to {forward.user}." if forward else link_ports.anywhere(port)


def of_port(port: int) -> str:
    """Why a server cannot have this UDP port; empty where it can."""
    return f"UDP port {port} is that of the mesh." if Mesh.objects.filter(port=port).exists() else ""


def overlapped(network: networks.Network) -> str | None:
    """Whether ``network``, of whatever else, meets the mesh's."""
    for row in Mesh.objects.all():
        if networks.overlaps(network, row.network):
            return f"{network} overlaps {row.network}, the network of the mesh."
    return None
