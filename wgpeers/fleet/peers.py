"""Connections as their hosts know them: with the ports, networks and names that follow them from host to host."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from django.db.models import QuerySet

from servers import names
from servers.hostnet.state import Forward, Peer, Probe
from servers.models import Address, ClientNetwork, PortForward, Protocol, Server
from wgpeers.models import Connection


def peer_of(connection: Connection, server: Server, *, has_forwards: bool, has_networks: bool) -> Peer:
    """``has_forwards`` and ``has_networks``: whether its user is known to have any; they are read only then."""
    return peers_of(server, [connection], has_forwards=has_forwards, has_networks=has_networks)[0]


def peers_of(
    server: Server, connections: Sequence[Connection], *, has_forwards: bool = True, has_networks: bool = True
) -> list[Peer]:
    """In the order of ``connections``, all of ``server``. What there is of each kind costs one query, however many
    connections there are."""
    forwards = _by_user(PortForward.objects.filter(server=server), connections) if has_forwards else {}
    networks = _by_user(_behind(server), connections) if has_networks else {}
    holders = _holders(server, connections) if forwards or networks else set()
    full_names = _names(server, connections) if server.dns_mapping else {}
    peers = []
    for connection in connections:
        user = connection.user_id if connection.pk in holders else None
        mine = networks.get(user, [])
        peers.append(
            Peer(
                connection.public_id,
                connection.version,
                connection.wg_public_key,
                allowed_ips=own_addresses(connection),
                networks=_networks(mine),
                probes=tuple(Probe(n.network, n.probe_address, n.probe_port or 0) for n in mine if n.probe_address),
                forwards=tuple(each for forward in forwards.get(user, []) for each in forwards_of(forward)),
                names=full_names.get(connection.pk, ()),
            )
        )
    return peers


def _behind(server: Server) -> QuerySet[ClientNetwork]:
    rows = ClientNetwork.objects.filter(server=server).order_by("network", "priority")
    # IPv6 may have been turned off since.
    return rows if server.ipv6 else rows.exclude(network__contains=":")


def own_addresses(connection: Connection) -> tuple[str, ...]:
    return (f"{connection.address}/32", *((f"{connection.address6}/128",) if connection.address6 else ()))


def _names(server: Server, connections: Sequence[Connection]) -> dict[int, tuple[str, ...]]:
    """By connection (primary key)."""
    devices = {
        each.pk: names.NamedDevice(each.user_id, each.device_id, each.device_name)
        for each in connections
        if each.user_id is not None
    }
    found = names.of_devices(server, list(devices.values()))
    return {connection: found[device] for connection, device in devices.items() if device in found}


def _networks(rows: Sequence[ClientNetwork]) -> tuple[str, ...]:
    """What is routed to the user: the networks that it serves now, and every probe address, so that one that has
    failed is seen to be well again."""
    probed = [f"{row.probe_address}/{128 if ':' in row.probe_address else 32}" for row in rows if row.probe_address]
    return tuple(dict.fromkeys([*(row.network for row in rows if row.active), *probed]))


def forwards_of(forward: PortForward) -> list[Forward]:
    protocols = ["tcp", "udp"] if forward.protocol == Protocol.BOTH else [forward.protocol]
    last, to_port = forward.last_port or forward.port, forward.to_port or forward.port
    return [Forward(protocol, forward.port, last, to_port) for protocol in protocols]


def _by_user(rows: QuerySet[Any], connections: Sequence[Connection]) -> dict[int | None, list[Any]]:
    """The rows by the user they are for; of one connection only its own user's are read."""
    if len(connections) == 1:
        rows = rows.filter(user=connections[0].user_id)
    found: defaultdict[int | None, list[Any]] = defaultdict(list)
    for row in rows:
        found[row.user_id].append(row)
    return dict(found)


def _holders(server: Server, connections: Sequence[Connection]) -> set[int]:
    """Which of the connections (primary keys) have their user's static address: of a user's several devices, it is
    the one that ports and networks are for."""
    if not server.multi_device:
        return {connection.pk for connection in connections}
    held = [each.host_part for each in connections]
    static = Address.objects.filter(server=server, dynamic=False, host_part__in=held)
    parts = set(static.values_list("host_part", "user_id"))
    return {each.pk for each in connections if (each.host_part, each.user_id) in parts}
