"""By which hosts links lead, and telling everybody concerned when that changes: hosts fall silent, and come back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import chain

import redis

from core import task_names
from core.redis_store import RedisUnavailable, redis_client
from core.task_queue import enqueue
from servers import carriers
from servers.carriers import Place
from servers.models import Host, MeshNode, OutsideLink, Server, ServerHost, ServerLink

# As ``carriers.CHOSEN``, as hosts were last told.
TOLD = "links:ways"


def way_to(server: Server, host: Host) -> str:
    """The host (public id) by which ``host``, that does not carry ``server``, reaches what that one's routes lead to.
    Empty where there is none, or where ``host`` is not in the mesh."""
    if not MeshNode.objects.exclude(public_key="").filter(host=host).exists():
        return ""
    found = carriers.holder(*carriers.ways([server.pk]))
    return found.public_id if found is not None else ""


def follow() -> None:
    """Choose anew, and tell those whom it concerns. Raise ``RedisUnavailable``. Done twice it is told twice, and is the
    same."""
    concerned = {place.name: (place, servers) for place, servers in _places()}
    now = carriers.elect([place for place, _ in concerned.values()])
    try:
        told = {str(name): str(host) for name, host in redis_client().hgetall(TOLD).items()}
        moved = {name for name in now.keys() | told.keys() if now.get(name) != told.get(name)}
        _tell({server for name in moved if name in concerned for server in concerned[name][1]})
        if moved:
            _note(now)
    except redis.RedisError as error:
        raise RedisUnavailable from error


def _places() -> Iterator[tuple[Place, set[int]]]:
    """Each with the servers (primary keys) whose hosts it concerns."""
    near: defaultdict[int, set[int]] = defaultdict(set)
    for link in ServerLink.objects.select_related("first", "second"):
        pair = {link.first_id, link.second_id}
        if link.by_openvpn:
            yield from ((place, pair) for place in carriers.link_places(link).values())
            continue
        for server in pair:
            near[server] |= pair - {server}
    yield from zip(carriers.ways(near), near.values(), strict=True)
    outside = list(OutsideLink.objects.all())
    yield from (
        (place, {link.server_id}) for place, link in zip(carriers.outside_places(outside), outside, strict=True)
    )


def _tell(servers: set[int]) -> None:
    hosts = ServerHost.objects.filter(server__in=servers).values_list("host", flat=True)
    for host in sorted(set(hosts)):
        enqueue(task_names.CONVERGE, host)


def _note(now: Mapping[str, str]) -> None:
    with redis_client().pipeline() as pipeline:
        pipeline.delete(TOLD)
        if now:
            pipeline.hset(TOLD, items=[*chain.from_iterable(now.items())])
        pipeline.execute()
