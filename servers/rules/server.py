"""What a server cannot be."""

from __future__ import annotations

from django.core.exceptions import ValidationError

from servers import networks
from servers.models import Route, Server
from servers.validators import listed

from . import client_network, forward, mesh
from .registry import rule


@rule(Server)
def check(server: Server) -> None:
    """Raise ``ValidationError`` with a message at the field that must change."""
    problems: dict[str, list[str]] = {}
    _networks(server, problems)
    if server.ping_timeout < 2 * server.ping_interval:
        problems["ping_timeout"] = ["One lost ping must not end a connection: at least twice the ping interval."]
    if server.keep_connected_device and server.multi_device:
        problems["keep_connected_device"] = ["Turn this off, or multi-device."]
    _names(server, problems)
    if message := mesh.of_port(server.port):
        problems["port"] = [message]
    elif server.pk:
        for attachment in server.attachments.select_related("host"):
            if clash := port_in_use(server, attachment.host_id):
                problems["port"] = [f"UDP port {server.port} is in use on host {attachment.host} by server {clash}."]
            elif taken := forward.of_port(attachment.host_id, "udp", server.port):
                problems["port"] = [f"UDP port {server.port} of host {attachment.host} is forwarded to {taken.user}."]
    if problems:
        raise ValidationError(problems)


def _networks(server: Server, problems: dict[str, list[str]]) -> None:
    mine: dict[str, networks.Network] = {}
    for field in ("network", "wg_network"):
        if not getattr(server, field):
            continue  # missing, which the field says by itself
        try:
            mine[field] = networks.virtual_network(getattr(server, field))
        except ValidationError as error:
            problems[field] = error.messages
    if len(mine) == 2:
        if networks.overlaps(mine["network"], mine["wg_network"]):
            problems["wg_network"] = [f"{mine['wg_network']} overlaps the virtual network {mine['network']}."]
        elif mine["network"].prefixlen != mine["wg_network"].prefixlen:
            length = mine["network"].prefixlen
            problems["wg_network"] = [
                f"It must be a /{length} like the virtual network: clients have the same host part in both."
            ]
    if server.ipv6 or server.network6:
        try:
            if isinstance(four := mine.get("wg_network"), networks.IPv4):
                mine["network6"] = networks.virtual_network6(server.network6, four)
        except ValidationError as error:
            problems["network6"] = error.messages
    for field, network in mine.items():
        if field not in problems and (message := _overlap(server, network) or _mapped(server, field, network)):
            problems[field] = [message]
    if server.pk and "wg_network" not in problems and "wg_network" in mine:
        _still_room(server, mine["wg_network"], problems)


def _names(server: Server, problems: dict[str, list[str]]) -> None:
    if server.dns_tls_name and len(listed(server.dns_tls_name)) != 1:
        problems["dns_tls_name"] = ["One name, that of all these servers' certificates."]
    elif server.dns_tls_name and not listed(server.dns_servers):
        problems["dns_tls_name"] = ["Give the DNS servers that are asked over TLS, or leave this empty."]


def _overlap(server: Server, network: networks.Network) -> str | None:
    for other in Server.objects.exclude(pk=server.pk):
        for text in (other.network, other.wg_network, other.network6 if other.ipv6 else ""):
            if networks.overlaps(network, text):
                return f"{network} overlaps {text} of server {other}."
    return client_network.overlapped(network) or mesh.overlapped(network)


def _mapped(server: Server, field: str, network: networks.Network) -> str | None:
    """Whether a tunnel network meets one that a route maps. The server's own routes are in the same form, where their
    own check says it."""
    if field == "network":
        return None  # nobody has an address of it
    for route in Route.objects.exclude(netmap="").exclude(server=server.pk).select_related("server"):
        for text in (route.network, route.netmap):
            if networks.overlaps(network, text):
                return f"{network} overlaps {text}, which a route of server {route.server} maps."
    return None


def _still_room(server: Server, network: networks.Network, problems: dict[str, list[str]]) -> None:
    highest = server.addresses.exclude(user=None).order_by("-host_part").first()
    if highest is not None and highest.host_part > network.num_addresses - 2:
        problems["wg_network"] = [f"{network} is too small: {highest.user} has host part {highest.host_part}."]


def port_in_use(server: Server, host: int) -> Server | None:
    return Server.objects.filter(port=server.port, attachments__host=host).exclude(pk=server.pk).first()
