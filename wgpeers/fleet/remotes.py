"""What the hosts of a server are told of clients that are on others of them.

Whoever makes or ends a connection only notes its id. A task reads what became of all that were noted, and sends each
host of those servers one message: while many connect at once, many are in it. So a connect costs the same however many
hosts there are. What is lost on the way is in the hosts' next full states.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import redis

from core import task_names
from core.redis_store import redis_client
from core.task_queue import enqueue_composed, enqueue_for_each
from servers.hostnet.state import AddRemotes, Remote, RemoveRemotes, to_json
from servers.models import Carrier, Host, Server, ServerHost, with_linked
from wgpeers.models import Connection, State

from .peers import peers_of

log = logging.getLogger(__name__)

# A set in Redis: connections (public ids) that came or went, of which the other hosts have not been told.
CHANGED = "remotes:changed"
AT_ONCE = 500
QUEUE = "control"


# Noting what changed


def note(connections: Collection[str]) -> None:
    """Have all hosts told what became of these connections, of servers that have several hosts."""
    if not connections:
        return
    try:
        with redis_client().pipeline() as pipe:
            pipe.scard(CHANGED)
            pipe.sadd(CHANGED, *connections)
            waiting = pipe.execute()[0]
    except redis.RedisError as error:
        log.warning("other hosts hear of clients with their next full state (%s)", type(error).__name__)
        return
    if not waiting:  # else the task is queued already, and has not taken them yet
        enqueue_composed(task_names.SPREAD, AT_ONCE, QUEUE)


def note_ended(connections: Iterable[Connection]) -> None:
    """Those of them whose servers, with those that these are linked with, have other hosts than theirs."""
    rows = list(connections)
    if not rows:
        return
    near = with_linked({row.server_key for row in rows}, carrier=Carrier.MESH)
    hosts: defaultdict[int, set[int | None]] = defaultdict(set)
    for server, host in ServerHost.objects.filter(server__in=set().union(*near.values())).values_list("server", "host"):
        hosts[server].add(host)
    concerned = {server: set().union(*(hosts[each] for each in every)) for server, every in near.items()}
    note([row.public_id for row in rows if concerned[row.server_key] - {row.host_id}])


# Telling the hosts


def spread(most: int = AT_ONCE) -> int:
    """Tell of all that was noted, ``most`` connections in one message; how many it were. Raise ``RedisError``."""
    told = 0
    while ids := _taken(most):
        told += len(ids)
        _tell(ids)
    return told


def _taken(most: int) -> list[str]:
    taken: Any = redis_client().spop(CHANGED, most)
    return list(taken)


def _tell(ids: Sequence[str]) -> None:
    rows = Connection.objects.select_related("server").filter(public_id__in=ids)
    by_server: defaultdict[Server, list[Connection]] = defaultdict(list)
    for row in rows:
        if row.server is not None:
            by_server[row.server].append(row)
    near = with_linked([server.pk for server in by_server], carrier=Carrier.MESH)
    for server, mine in by_server.items():
        hosts = list(Host.objects.filter(attachments__server__in=near[server.pk], enabled=True).distinct())
        # Who comes before who goes: an address that passes from one to the other is somebody's all the while.
        opened = [row for row in mine if row.state == State.OPEN]
        _send("hostnet.add_remotes", AddRemotes(tuple(of_connections(server, opened))), hosts, opened)
        ended = [row for row in mine if row.state == State.ENDED]
        _send("hostnet.remove_remotes", RemoveRemotes(tuple(row.public_id for row in ended)), hosts, ended)


def _send(task: str, message: AddRemotes | RemoveRemotes, hosts: Sequence[Host], rows: Sequence[Connection]) -> None:
    """The same message for each, so that it is written once: a host passes over its own clients."""
    on = {row.host_id for row in rows}
    # To whom all of it is its own it says nothing.
    concerned = [host.queue for host in hosts if rows and on != {host.pk}]
    if concerned:
        enqueue_for_each(task, to_json(message), concerned)


# Rows as messages


def of_connections(server: Server, rows: Sequence[Connection]) -> list[Remote]:
    """``rows`` are connections of ``server``. One that waits for its host's word has no host yet."""
    # Read once: joined to every row they would cost as much again as the rows.
    hosts: dict[int | None, str] = dict(Host.objects.values_list("pk", "public_id"))
    placed = [row for row in rows if row.state == State.OPEN and row.host_id in hosts]
    found = [
        Remote(
            row.public_id,
            row.version,
            row.pk,
            server.public_id,
            hosts[row.host_id],
            allowed_ips=peer.allowed_ips,
            networks=peer.networks,
            names=peer.names,
            forwards=peer.forwards,
        )
        for row, peer in zip(placed, peers_of(server, placed), strict=True)
    ]
    waiting = [row for row in rows if row.state == State.PENDING]
    return [*found, *(Remote(row.public_id, row.version, row.pk, server.public_id, "") for row in waiting)]


def others_of(host: Host) -> tuple[tuple[str, int], ...]:
    """All other hosts, each with its version, whatever servers they carry now: whether somebody is connected there is
    for the rows to say. To be read before those, as ``desired`` does with the host's own version."""
    return tuple(Host.objects.exclude(pk=host.pk).order_by("pk").values_list("public_id", "version"))


def on_others(host: Host, servers: Iterable[Server]) -> tuple[Remote, ...]:
    """The clients of these servers that are on other hosts."""
    found: list[Remote] = []
    for server in servers:
        rows = Connection.objects.filter(server=server).exclude(state=State.ENDED)
        found += of_connections(server, list(rows.exclude(host=host).order_by("pk")))
    return tuple(found)
