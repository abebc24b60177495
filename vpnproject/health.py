"""Whether this process lives, and whether the service can do its work: for load balancers and monitoring.

Strangers may ask. So an answer names parts and no more, and all that ask within a second get the same one.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable

import redis
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from core import clock, leases
from core.redis_store import RedisUnavailable, cannot_store, redis_client
from wgpeers.lifecycle import sweeps

log = logging.getLogger(__name__)

GOOD = "ok"
# Seconds for which an answer is given again, and for which somebody waits while another one looks.
KEPT, PATIENCE = 1.0, 5.0


@csrf_exempt
def alive(request: HttpRequest) -> HttpResponse:
    """``GET /healthz``: this process answers. It asks neither database nor Redis: to restart it mends neither."""
    return HttpResponse("ok\n", content_type="text/plain")


@csrf_exempt
def ready(request: HttpRequest) -> HttpResponse:
    """``GET /readyz``: 200 where connects can work, else 503; ``checks`` says what of each part."""
    checks = _looks.taken()
    good = all(said == GOOD for said in checks.values())
    text = json.dumps({"ready": good, "checks": checks}) + "\n"
    headers = {"Cache-Control": "no-store"} | ({} if good else {"Retry-After": "5"})
    return HttpResponse(text, content_type="application/json", status=200 if good else 503, headers=headers)


class Looks:
    """One thread looks; those who ask meanwhile, or shortly after, get what it found."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, str] = {}
        self._until = 0.0

    def taken(self) -> dict[str, str]:
        if not self._lock.acquire(timeout=PATIENCE):
            return {"process": "busy"}
        try:
            if clock.steady() >= self._until:
                self._found, self._until = look(), clock.steady() + KEPT
            return self._found
        finally:
            self._lock.release()

    def forget(self) -> None:
        self._until = 0.0


_looks = Looks()


def look() -> dict[str, str]:
    """By part, what is wrong with it in a word, or ``GOOD``."""
    checks: dict[str, Callable[[], str]] = {
        "database": _database,
        "migrations": _migrations,
        "redis": _redis,
        "beat": _beat,
        "sweeps": _sweeps,
    }
    return {name: _said(check) for name, check in checks.items()}


def _said(check: Callable[[], str]) -> str:
    try:
        return check()
    except (DatabaseError, redis.RedisError, RedisUnavailable, OSError):
        return "unreachable"
    except Exception:  # a monitor must get an answer, and the log what broke it
        log.exception("a part could not be looked at")
        return "failed"


def _database() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return GOOD


def _migrations() -> str:
    executor = MigrationExecutor(connection)
    return "missing" if executor.migration_plan(executor.loader.graph.leaf_nodes()) else GOOD


def _redis() -> str:
    redis_client().ping()
    return "cannot write" if cannot_store() else GOOD


def _beat() -> str:
    return GOOD if leases.holder(leases.BEAT) is not None else "nobody beats"


def _sweeps() -> str:
    """Each comes through the control workers' queue: while they come, that queue moves too."""
    return GOOD if sweeps.late() is None else "late"
