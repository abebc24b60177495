"""From the database to the wanted state of one host. Reads only."""

from __future__ import annotations

from django.conf import settings

from servers import networks
from servers.hostnet.state import HostState, Interface, Peer, Route
from servers.models import Host, Server

from .connect import peer_of
from .models import Connection, State


def state_of(host_id: int) -> HostState | None:
    """What the host must look like; None if there is no such host.

    The version is read before the rows. A change that commits in between is then in the rows but not in the
    version: the host sees peers newer than the state's version, which it knows how to take. The other way round
    it would take an old row for the newest word.
    """
    host = Host.objects.filter(pk=host_id).first()
    if host is None:
        return None
    servers = _running_servers(host)
    peers = _peers(host)
    interfaces = tuple(_interface(server, tuple(peers.get(server.pk, ()))) for server in servers)
    return HostState(host.public_id, host.version, host.boot, settings.GATEWAY_PORT, interfaces)


def _running_servers(host: Host) -> list[Server]:
    if not host.enabled:
        return []
    running = Server.objects.filter(attachments__host=host, started=True, wireguard=True)
    return list(running.prefetch_related("routes").order_by("pk"))


def _peers(host: Host) -> dict[int, list[Peer]]:
    """Peers by server, connections still waiting for their confirmation included."""
    peers: dict[int, list[Peer]] = {}
    for connection in Connection.objects.filter(host=host).exclude(state=State.ENDED).order_by("pk"):
        peers.setdefault(connection.server_id, []).append(peer_of(connection))
    return peers


def _interface(server: Server, peers: tuple[Peer, ...]) -> Interface:
    addresses = [networks.with_length(server.wg_network, networks.GATEWAY_PART)]
    if server.ipv6:
        addresses.append(networks.with_length(server.network6, networks.GATEWAY_PART))
    return Interface(
        name=server.interface,
        server=server.public_id,
        port=server.port,
        addresses=tuple(addresses),
        mtu=server.mtu,
        inter_client=server.inter_client,
        ping_timeout=server.ping_timeout,
        routes=tuple(Route(route.network, route.nat) for route in server.routes.all()),
        peers=peers,
    )
