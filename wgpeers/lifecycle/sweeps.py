"""Whether the sweeps still run: a worker or a beat that hangs exits nowhere, so nobody would notice."""

from __future__ import annotations

import json

import redis

from core import clock, nodes
from core.redis_store import RedisUnavailable, redis_client

_LAST = "sweeps:last"
LATE = 60.0  # seconds; a sweep comes every ten


def note() -> None:
    """A sweep is done. Raise ``RedisError``."""
    said = {"boot": clock.BOOT, "steady": clock.steady(), "node": nodes.ME, "now": clock.now()}
    redis_client().set(_LAST, json.dumps(said))


def late() -> float | None:
    """For how many seconds there has been no sweep, where that is too long; None if all is well or nobody can tell.
    Raise ``RedisUnavailable``."""
    try:
        text = redis_client().get(_LAST)
    except redis.RedisError as error:
        raise RedisUnavailable from error
    last = json.loads(text) if text else {}
    if last.get("boot") == clock.BOOT:
        since = clock.steady() - float(last["steady"])
        return since if since > LATE else None
    if last.get("node", nodes.ME) == nodes.ME:  # of before this machine was started
        return None
    # Of another node, by whose clock there may be as much more to it.
    since = clock.now() - float(last["now"])
    return since if since > LATE + nodes.MAY_DIFFER else None
