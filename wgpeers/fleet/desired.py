"""From the database to the desired state of one host. Reads only."""

from __future__ import annotations

from django.conf import settings

from core.clock import now
from servers import mesh, networks, routing
from servers.hostnet.state import Dns, HostState, Interface, Peer, Split
from servers.models import Host, Server
from servers.validators import listed
from wgpeers.models import Connection, State

from . import links, remotes
from .lingering import lingering_on
from .peers import peers_of


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
    neighbours = links.neighbours_of(servers)
    others = remotes.others_of(host)
    # What OpenVPN carries has no client of the other server here: all of them are behind its tunnel.
    linked = (each.server for every in neighbours.values() for each in every if not each.link.by_openvpn)
    concerned = {server.pk: server for server in (*linked, *servers)}
    elsewhere = remotes.on_others(host, concerned.values()) if others else ()
    connections = _connections(host)
    # After those that are open: who ends in between is in both rather than in neither, and its host knows what to take.
    ended = lingering_on(host, servers, now())
    here = {server.pk for server in servers}
    interfaces = tuple(
        links.joined(
            _interface(server, (*peers_of(server, connections.get(server.pk, [])), *ended.get(server.pk, []))),
            server,
            neighbours[server.pk],
            host,
            here,
        )
        for server in servers
    )
    return HostState(
        host.public_id,
        host.version,
        host.boot,
        settings.GATEWAY_PORT,
        interfaces,
        open_foreign_firewalls=host.open_foreign_firewalls,
        mesh=mesh.mesh_of(host),
        gateways=mesh.gateways_of(host),
        remotes=elsewhere,
        others=others,
    )


def _running_servers(host: Host) -> list[Server]:
    if not host.enabled:
        return []
    running = Server.objects.filter(attachments__host=host, started=True, wireguard=True)
    return list(running.prefetch_related("routes", "split_domains", "client_networks").order_by("pk"))


def _connections(host: Host) -> dict[int, list[Connection]]:
    """Connections by server, those still waiting for their confirmation included."""
    found: dict[int, list[Connection]] = {}
    for connection in Connection.objects.filter(host=host).exclude(state=State.ENDED).order_by("pk"):
        found.setdefault(connection.server_key, []).append(connection)
    return found


def _interface(server: Server, peers: tuple[Peer, ...]) -> Interface:
    addresses = [networks.with_length(server.wg_network, networks.GATEWAY_HOST_PART)]
    if server.ipv6:
        addresses.append(networks.with_length(server.network6, networks.GATEWAY_HOST_PART))
    return Interface(
        name=server.interface,
        server=server.public_id,
        port=server.port,
        addresses=tuple(addresses),
        mtu=server.mtu,
        inter_client=server.inter_client,
        ping_timeout=server.ping_timeout,
        routes=tuple(links.route_of(piece) for piece in routing.routed(server.routes.all())),
        peers=peers,
        restrict=server.restrict_routes,
        dns=_dns(server),
        behind=tuple(sorted({row.network for row in server.client_networks.all()})),
    )


def _dns(server: Server) -> Dns | None:
    if not server.dns_mapping:
        return None
    splits = tuple(Split(each.domain.lower(), tuple(listed(each.dns_servers))) for each in server.split_domains.all())
    return Dns(server.dns_zone.lower(), tuple(listed(server.dns_servers)), server.dns_tls_name, splits)
