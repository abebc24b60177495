"""Whether the sweeps still run: a worker or a beat that hangs exits nowhere, so nobody would notice."""

from __future__ import annotations

import json

import redis

from core import clock
from core.redis_store import RedisUnavailable, redis_client

_LAST = "sweeps:last"
LATE = 60.0  # seconds; a sweep comes every ten


def note() -> None:
    """A sweep is done. Raise ``RedisError``."""
    redis_client().set(_LAST, json.dumps({"boot": clock.BOOT, "steady": clock.steady()}))


def late() -> float | None:
    """For how many seconds there has been no sweep, where that is too long; None if all is well or nobody can tell.
    Raise ``RedisUnavailable``."""
    try:
        text = redis_client().get(_LAST)
    except redis.RedisError as error:
        raise RedisUnavailable from error
    last = json.loads(text) if text else {}
    if last.get("boot") != clock.BOOT:  # of before this machine was started, or of another one
        return None
    since = clock.steady() - float(last["steady"])
    return since if since > LATE else None
