"""Which of a server's hosts does what one host does at a time: to have the end of a link that OpenVPN carries, or to be
the way to what the server's routes lead to.

It is chosen by what hosts were heard (``elect``, once a second), kept in Redis, and read from there by everybody else,
so that all hosts are told the same whenever they are told. Who has it keeps it for as long as nobody is better: a link
that moves interrupts what it carries.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import redis
from django.db.models import prefetch_related_objects

from core.redis_store import RedisUnavailable, redis_client

from . import heartbeats
from .hostnet.state.reach import number
from .models import Host, MeshNode, OutsideLink, ServerHost, ServerLink, among, ends_of

CHOSEN = "links:chosen"  # public ids of hosts, by the name of the place


@dataclass(frozen=True, slots=True)
class Place:
    """What one of ``rows`` (of one server, by priority) does at a time. ``name`` is the same for as long as it is the
    same place."""

    name: str
    rows: tuple[ServerHost, ...]


def ways(servers: Collection[int]) -> list[Place]:
    """The hosts by which the routes of each of these servers (primary keys) are reached from machines that do not carry
    it: those in the mesh."""
    nodes = MeshNode.objects.exclude(public_key="").values("host")
    rows = ServerHost.objects.filter(server__in=servers, host__enabled=True, host__in=nodes).select_related("host")
    found: dict[int, list[ServerHost]] = {server: [] for server in servers}
    for row in rows.order_by("priority", "pk"):
        found[row.server_id].append(row)
    return [Place(f"way {server}", tuple(mine)) for server, mine in found.items()]


def link_places(link: ServerLink) -> dict[int, Place]:
    """By server (primary key), its end of a link that OpenVPN carries; nothing where there cannot be any."""
    return {rows[0].server_id: Place(f"link {link.pk} {rows[0].server_id}", rows) for rows in ends_of(link) or ()}


def outside_places(links: Sequence[OutsideLink]) -> list[Place]:
    """Our end of each of these, in that order."""
    prefetch_related_objects(links, "server__attachments__host__node")
    return [Place(f"outside {link.pk}", among(link.server.attachments.all(), listening=link.listens)) for link in links]


# Who has them


def holder(place: Place) -> Host | None:
    """Who was chosen; while nobody was, who would be. None where nobody can."""
    return holders([place]).get(place.name)


def holders(places: Collection[Place]) -> dict[str, Host]:
    """As ``holder``, by the places' names."""
    first = {place.name: place.rows[0].host for place in places if place.rows}
    several = [place for place in places if len(place.rows) > 1]
    if not several:
        return first
    try:
        chosen = _chosen()
        there = {place.name: _of(place, chosen.get(place.name, "")) for place in several}
        unknown = [place for place in several if there[place.name] is None]
        best = _best(unknown, {}) if unknown else {}
    except RedisUnavailable:
        return first
    return first | best | {name: host for name, host in there.items() if host is not None}


def _of(place: Place, chosen: str) -> Host | None:
    return next((row.host for row in place.rows if row.host.public_id == chosen), None)


def elect(places: Collection[Place]) -> dict[str, str]:
    """Choose for each of these, which are all that there are, and keep it; the public ids of who has them, by name.
    Raise ``RedisUnavailable``."""
    before = _chosen()
    now = {name: host.public_id for name, host in _best(places, before).items()}
    if now != before:
        try:
            with redis_client().pipeline() as pipeline:
                pipeline.delete(CHOSEN)
                if now:
                    pipeline.hset(CHOSEN, items=[*chain.from_iterable(now.items())])
                pipeline.execute()
        except redis.RedisError as error:
            raise RedisUnavailable from error
    return now


def _chosen() -> dict[str, str]:
    try:
        return {str(name): str(host) for name, host in redis_client().hgetall(CHOSEN).items()}
    except redis.RedisError as error:
        raise RedisUnavailable from error


def _best(places: Collection[Place], before: Mapping[str, str]) -> dict[str, Host]:
    hosts = {row.host.pk: row.host for place in places for row in place.rows}
    heard = heartbeats.read(list(hosts.values()))
    return {
        place.name: min(place.rows, key=lambda row: _rank(row, heard, before.get(place.name, ""))).host
        for place in places
        if place.rows
    }


def _rank(row: ServerHost, heard: Mapping[int, Mapping[str, Any]], before: str) -> tuple[object, ...]:
    """The least is the best. Whoever has it keeps it while its worker begins anew: what runs there goes on."""
    host, has_it = row.host, row.host.public_id == before
    well = host.enabled and (row.host_id in heard if has_it else _is_ready(heard.get(row.host_id, {})))
    return (not well, host.draining, row.priority, not has_it, row.pk)


def _is_ready(beat: Mapping[str, Any]) -> bool:
    """Whether its worker lives and has been told what to do: one that has just started knows of no server yet."""
    return (number(beat.get("version")) or 0) > 0
