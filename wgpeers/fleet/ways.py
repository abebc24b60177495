"""By which host the routes of a linked server are reached from machines that do not carry it: one that was heard, the
first by priority. When it falls silent another one takes over, as its clients go to another one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import redis

from core import task_names
from core.redis_store import RedisUnavailable, redis_client
from core.task_queue import enqueue
from servers import heartbeats
from servers.hostnet.state.reach import number
from servers.models import Host, MeshNode, Server, ServerHost, ServerLink

# The ways that hosts were last told to take: the host's public id by the server's primary key.
TOLD = "links:ways"


def way_to(server: Server, host: Host) -> str:
    """The host (public id) by which ``host``, that does not carry ``server``, reaches what that one's routes lead to.
    Empty where there is none, or where ``host`` is not in the mesh."""
    if not MeshNode.objects.exclude(public_key="").filter(host=host).exists():
        return ""
    try:
        return ways_to([server.pk]).get(server.pk, "")
    except RedisUnavailable:
        return _first(_attachments([server.pk]), {}).get(server.pk, "")


def ways_to(servers: Collection[int]) -> dict[int, str]:
    """The host (public id) of each of these servers (primary keys) that has any in the mesh. Raise
    ``RedisUnavailable``."""
    rows = _attachments(servers)
    return _first(rows, heartbeats.read([row.host for row in rows]))


def _attachments(servers: Collection[int]) -> list[ServerHost]:
    nodes = MeshNode.objects.exclude(public_key="").values("host")
    rows = ServerHost.objects.filter(server__in=servers, host__enabled=True, host__in=nodes).select_related("host")
    return list(rows.order_by("priority", "pk"))


def _first(rows: Collection[ServerHost], heard: Mapping[int, Mapping[str, Any]]) -> dict[int, str]:
    found: dict[int, str] = {}
    for row in sorted(rows, key=lambda row: not _is_ready(heard.get(row.host_id, {}))):
        found.setdefault(row.server_id, row.host.public_id)
    return found


def _is_ready(beat: Mapping[str, Any]) -> bool:
    """Whether its worker lives and has been told what to do: one that has just started knows of no server yet."""
    return (number(beat.get("version")) or 0) > 0


def follow() -> None:
    """Tell those whose way leads by another host now. Raise ``RedisUnavailable``. Done twice it is told twice, and is
    the same."""
    pairs = [(row.first_id, row.second_id) for row in ServerLink.objects.all() if not row.by_openvpn]
    if not pairs:
        return
    now = ways_to({server for pair in pairs for server in pair})
    try:
        _tell_who_is_concerned(pairs, now)
    except redis.RedisError as error:
        raise RedisUnavailable from error


def _tell_who_is_concerned(pairs: Collection[tuple[int, int]], now: Mapping[int, str]) -> None:
    told = {int(server): way for server, way in redis_client().hgetall(TOLD).items()}
    moved = {server for server in now.keys() | told.keys() if now.get(server) != told.get(server)}
    neighbours = {other for one, two in pairs for server, other in ((one, two), (two, one)) if server in moved}
    hosts = ServerHost.objects.filter(server__in=neighbours).values_list("host", flat=True)
    for host in sorted(set(hosts)):
        enqueue(task_names.CONVERGE, host)
    if moved:
        with redis_client().pipeline() as pipeline:
            pipeline.delete(TOLD)
            if now:
                pipeline.hset(TOLD, mapping={str(server): way for server, way in now.items()})
            pipeline.execute()
