"""What hosts report, read as data and never trusted: a report changes only rows of the host it came from."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from typing import Any

from servers.models import Host, ServerHost
from users.clock import moment
from users.queueing import enqueue
from users.store import store

from .ending import end
from .models import Connection, EndReason, State

log = logging.getLogger(__name__)

# Reports taken from one host at a time, so that a noisy host does not hold up the others.
BATCH = 200
LONGEST_TEXT = 2000


def take_reports(now: float) -> int:
    """Read what every host has reported since; how many reports it were."""
    taken = 0
    for host in Host.objects.all():
        texts: Any = store().lpop(f"{host.queue}:reports", BATCH)
        for text in texts or []:
            taken += 1
            try:
                take_report(host, json.loads(text), now)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                log.warning("host %s sent a report that cannot be read (%s)", host, type(error).__name__)
    return taken


def take_report(host: Host, report: dict[str, Any], now: float) -> None:
    """Raise ValueError, TypeError, KeyError or AttributeError for a report of the wrong form."""
    kinds: dict[str, Callable[[Host, dict[str, Any], float], None]] = {
        "hello": _hello,
        "applied": _applied,
        "removed": _removed,
    }
    kinds[report["kind"]](host, report, now)


def _hello(host: Host, report: dict[str, Any], now: float) -> None:
    """A worker has started: it takes nothing before a full state that names this run."""
    Host.objects.filter(pk=host.pk).update(boot=str(report["boot"])[:64], backend=str(report.get("backend", ""))[:16])
    enqueue("wgpeers.converge", host.pk)


def _applied(host: Host, report: dict[str, Any], now: float) -> None:
    drift = "\n".join(str(line) for line in report.get("drift", []))[:LONGEST_TEXT]
    fields: dict[str, Any] = {
        "applied_at": moment(now),
        "applied_version": int(report["version"]),
        "last_error": str(report.get("error") or "")[:LONGEST_TEXT],
    }
    if drift:
        fields |= {"drift": drift, "drift_at": moment(now)}
    # Own columns only: the admin may be saving the rest of this row.
    Host.objects.filter(pk=host.pk).update(**fields)
    for server, key in dict(report.get("keys", {})).items():
        if isinstance(key, str) and len(key) == 44:
            mine = ServerHost.objects.filter(host=host, server__public_id=str(server))
            mine.exclude(public_key=key).update(public_key=key)


def _removed(host: Host, report: dict[str, Any], now: float) -> None:
    mine = Connection.objects.select_related("server").filter(
        host=host, public_id__in=[str(c) for c in report["connections"]]
    )
    when = float(report.get("time", now))
    if not math.isfinite(when) or abs(when - now) > 3600:
        when = now
    for connection in mine:
        if connection.state != State.ENDED and report.get("reason") == "silent":
            # The host could not reach us and saw no handshake for the whole ping timeout.
            end([connection], EndReason.SILENT, now)
            connection.refresh_from_db()
        if connection.state == State.ENDED and connection.removed is None:
            due = connection.due or connection.ended
            latency = max(0.0, when - due.timestamp()) if due else None
            Connection.objects.filter(pk=connection.pk).update(removed=moment(when), removal_latency=latency)
