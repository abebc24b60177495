"""What a server cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from django.core.exceptions import ValidationError
from django.db.models import QuerySet

from servers import networks
from servers.models import Route, Server
from servers.networks import Network
from servers.validators import listed

from . import client_network, forward, host_networks, link, link_ports, mesh, odd_networks, outside_networks
from .registry import Finding, Mistake, Oddity, rule, save_rule
from .route import TUNNEL_OF_ANOTHER


@rule(Server)
def check(server: Server) -> Iterator[Finding]:
    yield from _networks(server)
    if server.ping_timeout < 2 * server.ping_interval:
        yield Mistake("ping_timeout", "One lost ping must not end a connection: at least twice the ping interval.")
    if server.keep_connected_device and server.multi_device:
        yield Mistake("keep_connected_device", "Turn this off, or multi-device.")
    yield from _names(server)
    yield from _port(server)


@save_rule(Server, "network", "wg_network", "ipv6", "network6", "started")
def while_it_runs(server: Server) -> Iterator[Mistake]:
    """Whoever saves it: one that is stopped has no tunnel yet, and a form says it all the same."""
    if server.started:
        yield from host_networks.of_server(server)


def _networks(server: Server) -> Iterator[Finding]:
    """What is wrong with one network hides nothing of the others."""
    readable, found = _readable(server)
    found += [*_of_one_length(readable)]
    wrong = {each.field for each in found}
    for field, network in readable.items():
        if field in wrong:
            continue
        if message := _overlap(server, network) or _routed(server, field, network) or _linked(server, field, network):
            found.append(Mistake(field, message))
        else:
            yield from odd_networks.of_tunnel(field, network)
            yield from _within_route(server, field, network)
    yield from found
    if "wg_network" in readable and not any(each.field == "wg_network" for each in found):
        yield from _still_room(server, readable["wg_network"])
    yield from host_networks.of_server(server)


def _readable(server: Server) -> tuple[dict[str, Network], list[Finding]]:
    """The networks by field, as far as they can be read, and what is wrong with the others."""
    readable: dict[str, Network] = {}
    found: list[Finding] = []
    readers: dict[str, Callable[[str], Network]] = {
        "network": networks.virtual_network,
        "wg_network": networks.virtual_network,
    }
    if server.ipv6 or server.network6:
        readers["network6"] = networks.virtual_network6
    for field, read in readers.items():
        text = getattr(server, field)
        if not text and (field != "network6" or not networks.derived6_of(server.wg_network)):
            continue  # missing, which the field says by itself; or it would have been derived from the WG network
        try:
            readable[field] = read(text)
        except ValidationError as error:
            found.append(Mistake(field, error.messages[0]))
    return readable, found


def _of_one_length(readable: Mapping[str, Network]) -> Iterator[Mistake]:
    virtual, tunnel, tunnel6 = (readable.get(field) for field in ("network", "wg_network", "network6"))
    if virtual and tunnel and networks.overlaps(virtual, tunnel):
        yield Mistake("wg_network", f"{tunnel} overlaps the virtual network {virtual}.")
    elif virtual and tunnel and virtual.prefixlen != tunnel.prefixlen:
        length = virtual.prefixlen
        yield Mistake(
            "wg_network",
            f"It must be a /{length} like the virtual network: clients have the same host part in both.",
        )
    if tunnel and tunnel6 and 128 - tunnel6.prefixlen < 32 - tunnel.prefixlen:
        yield Mistake("network6", f"{tunnel6} has no room for all clients of {tunnel}.")


def _port(server: Server) -> Iterator[Mistake]:
    if message := mesh.of_port(server.port):
        yield Mistake("port", message)
    if message := link_ports.of_server_port(server):
        yield Mistake("port", message)
    if not server.pk:
        return
    for attachment in server.attachments.select_related("host"):
        if clash := port_in_use(server, attachment.host_id):
            yield Mistake("port", f"UDP port {server.port} is in use on host {attachment.host} by server {clash}.")
        elif taken := forward.of_port(attachment.host_id, "udp", server.port):
            yield Mistake("port", f"UDP port {server.port} of host {attachment.host} is forwarded to {taken.user}.")


def _names(server: Server) -> Iterator[Mistake]:
    if server.dns_tls_name and len(listed(server.dns_tls_name)) != 1:
        yield Mistake("dns_tls_name", "One name, that of all these servers' certificates.")
    elif server.dns_tls_name and not listed(server.dns_servers):
        yield Mistake("dns_tls_name", "Give the DNS servers that are asked over TLS, or leave this empty.")


def _overlap(server: Server, network: Network) -> str | None:
    for other in Server.objects.exclude(pk=server.pk):
        for text in (other.network, other.wg_network, other.network6 if other.ipv6 else ""):
            if networks.overlaps(network, text):
                return f"{network} overlaps {text} of server {other}."
    return client_network.overlapped(network) or mesh.overlapped(network) or outside_networks.anywhere(network)


def _routed(server: Server, field: str, network: Network) -> str | None:
    """Whether a tunnel network meets one that another server's clients reach by a route: a LAN, which the tunnel would
    hide from them. The server's own routes are in the same form, where their own check says it."""
    if field == "network":
        return None  # nobody has an address of it
    for route in _of_others(server):
        for text in (route.network, route.netmap):
            if route.netmap and networks.overlaps(network, text):
                return f"{network} overlaps {text}, which a route of server {route.server} maps."
        if route.netmap or f"{TUNNEL_OF_ANOTHER} {route.network}" in route.confirmed:
            continue  # it was meant for this tunnel's clients
        if networks.within(networks.parse(route.network), network):
            return f"{network} would hide {route.network}, to which server {route.server} has a route."
    return None


def _linked(server: Server, field: str, network: Network) -> str | None:
    return link.taken(server, network) if field != "network" else None  # nobody has an address of that one


def _within_route(server: Server, field: str, network: Network) -> Iterator[Oddity]:
    """A route to a whole company's networks may well have room for a tunnel's; one to a LAN has not."""
    if field == "network":
        return
    for route in _of_others(server):
        wide = networks.parse(route.network)
        if wide != network and wide.prefixlen and networks.within(network, wide):
            message = f"{network} lies in {wide}, to which server {route.server} has a route: is it free there?"
            yield Oddity(field, message, "within_route", str(network))


def _of_others(server: Server) -> QuerySet[Route]:
    return Route.objects.exclude(server=server.pk).exclude(net_gateway=True).select_related("server")


def _still_room(server: Server, network: Network) -> Iterator[Mistake]:
    if not server.pk:
        return
    highest = server.addresses.exclude(user=None).order_by("-host_part").first()
    if highest is not None and highest.host_part > network.num_addresses - 2:
        yield Mistake("wg_network", f"{network} is too small: {highest.user} has host part {highest.host_part}.")


def port_in_use(server: Server, host: int) -> Server | None:
    return Server.objects.filter(port=server.port, attachments__host=host).exclude(pk=server.pk).first()
