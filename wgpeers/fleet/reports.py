"""What hosts report, read as data and never trusted: a report changes only rows of the host it came from."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import redis
from django.db import DatabaseError, DataError

from core import task_names
from core.clock import moment
from core.leases import Lease
from core.pace import Pace
from core.redis_store import RedisUnavailable, redis_client
from core.task_queue import enqueue
from servers import heartbeats, mesh
from servers.hostnet.state.conditions import conditions_from_json, conditions_to_json
from servers.hostnet.state.host_networks import host_networks_from_json, host_networks_to_json
from servers.models import Host, MeshNode, ServerHost
from wgpeers.lifecycle import site_failover
from wgpeers.lifecycle.ending import end
from wgpeers.models import Connection, EndReason, State

from . import restored

log = logging.getLogger(__name__)

# Reports taken from one host at a time, so that a noisy host does not hold up the others.
BATCH = 200
# Connections of one report looked up at once; databases limit the parameters of a query.
IDS_AT_ONCE = 500
LONGEST_TEXT = 2000
# What a report of the wrong form may raise: numbers out of any range, nesting without end and (PostgreSQL) text with
# NUL characters among it.
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError, DataError)


# One worker at a time, of all on all control nodes, so that what a host says is taken in the order in which it said it.
_turn, _here = Lease("reports", 10.0), threading.Lock()


def take_reports(now: float) -> int:
    """Read what every host has reported since; how many reports it were. Nothing where somebody else does just that.

    What cannot be written to the database is given back, for the next time.
    """
    if not _here.acquire(blocking=False):
        return 0
    try:
        if not _turn.hold():
            return 0
        try:
            return _take_all(now)
        finally:
            with suppress(redis.RedisError):
                _turn.release()
    finally:
        _here.release()


def _take_all(now: float) -> int:
    taken = 0
    hosts = list(Host.objects.all())
    behind = {host.pk for host in restored.catch_up(hosts)}
    for host in hosts:
        if not _turn.hold():  # it took so long that somebody else goes on with it
            break
        texts = _waiting(host)
        greeted = _take_from(host, texts, now) or host.pk in behind
        taken += len(texts)
        if greeted:  # once, however often it said hello: a full state is work for the queue of all hosts
            enqueue(task_names.CONVERGE, host.pk)
    return taken


def _take_from(host: Host, texts: list[str], now: float) -> bool:
    """Whether the host waits for a full state."""
    greeted = False
    for number, text in enumerate(texts):
        try:
            greeted |= take_report(host, json.loads(text), now)
        except UNREADABLE as error:
            log.warning("host %s sent a report that cannot be read (%s)", host, type(error).__name__)
        except DatabaseError:
            redis_client().lpush(f"{host.queue}:reports", *reversed(texts[number:]))
            raise
    return greeted


def _waiting(host: Host) -> list[str]:
    try:
        texts: Any = redis_client().lpop(f"{host.queue}:reports", BATCH)
    except redis.ResponseError as error:
        # The host may write what it likes under this key, even something that is no list; the others go on.
        log.warning("host %s keeps no list of reports (%s)", host, error)
        return []
    return texts or []


def take_report(host: Host, report: dict[str, Any], now: float) -> bool:
    """Whether it waits for a full state. Raise one of UNREADABLE for a report of the wrong form."""
    kinds: dict[str, Callable[[Host, dict[str, Any], float], None]] = {
        "hello": _hello,
        "applied": _applied,
        "repaired": _applied,  # by itself, without a message of ours
        "removed": _removed,
        "probe": _probe,
        "left": _left,
    }
    kind = report["kind"]
    kinds[kind](host, report, now)
    return bool(kind == "hello")


def _hello(host: Host, report: dict[str, Any], now: float) -> None:
    """A worker has started: it takes nothing before a full state that names this run."""
    Host.objects.filter(pk=host.pk).update(boot=str(report["boot"])[:64], backend=str(report.get("backend", ""))[:16])
    mesh.note_key(host, report.get("mesh_key"))


def _left(host: Host, report: dict[str, Any], now: float) -> None:
    """The machine takes its leave, by its own command: its place in the mesh and its user in Redis end."""
    MeshNode.objects.filter(host=host, control=False).delete()


def _applied(host: Host, report: dict[str, Any], now: float) -> None:
    drift = "\n".join(str(line) for line in report.get("drift", []))[:LONGEST_TEXT]
    fields: dict[str, Any] = {
        "applied_at": moment(now),
        "applied_version": int(report["version"]),
        "conditions": conditions_to_json(conditions_from_json(report.get("conditions", []))),
    }
    if report.get("networks") is not None:
        networks = host_networks_to_json(host_networks_from_json(report["networks"]))
        if networks != host.networks:
            host.networks = fields["networks"] = networks
    if drift:
        fields |= {"drift": drift, "drift_at": moment(now)}
    # Own columns only: the admin may be saving the rest of this row.
    Host.objects.filter(pk=host.pk).update(**fields)
    for server, key in dict(report.get("keys", {})).items():
        if isinstance(key, str) and len(key) == 44:
            mine = ServerHost.objects.filter(host=host, server__public_id=str(server))
            mine.exclude(public_key=key).update(public_key=key)


def _removed(host: Host, report: dict[str, Any], now: float) -> None:
    when = float(report.get("time", now)) - _ahead(host, now)
    if not math.isfinite(when) or abs(when - now) > 3600:
        when = now
    pace = Pace()
    for connection in _mine(host, [str(connection) for connection in report["connections"]]):
        pace.breathe()
        if connection.state != State.ENDED and report.get("reason") == "silent":
            # The host could not reach us and saw no handshake for the whole ping timeout.
            end([connection], EndReason.SILENT, now)
            connection.refresh_from_db()
        if connection.state == State.ENDED and connection.removed is None:
            due = connection.due or connection.ended
            latency = max(0.0, when - due.timestamp()) if due else None
            Connection.objects.filter(pk=connection.pk).update(removed=moment(when), removal_latency=latency)


def _ahead(host: Host, now: float) -> float:
    """By how much its clock is ahead: half an hour of that would be half an hour of latency."""
    try:
        return heartbeats.ahead(heartbeats.read([host]).get(host.pk, {}), now)
    except RedisUnavailable:
        return 0.0


def _probe(host: Host, report: dict[str, Any], now: float) -> None:
    """An address behind one of its peers has stopped answering, or answers again."""
    if not isinstance(report["ok"], bool):
        raise ValueError("ok is neither true nor false")
    site_failover.probed(host, str(report["connection"]), str(report["network"]), report["ok"], now)


def _mine(host: Host, ids: list[str]) -> Iterator[Connection]:
    """Those of the connections that are this host's."""
    for start in range(0, len(ids), IDS_AT_ONCE):
        some = ids[start : start + IDS_AT_ONCE]
        yield from Connection.objects.select_related("server").filter(host=host, public_id__in=some)
