"""Ping deadlines, in Redis: a sorted set of connection ids by the Unix second at which each is overdue.

Redis may lose its memory, or come back with an old one. The marker holds the run id of the Redis process that the
deadlines were written to: if it is missing or another, every open connection gets a full deadline before anything
is swept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import redis

from core.redis_store import RedisUnavailable, own_connection, redis_client

DEADLINES = "liveness:deadlines"
PINGS = "liveness:pings"
MARKER = "liveness:marker"

# The plaintext timestamp of the last accepted ping is kept beside the deadline. One that is not newer (a replay, a
# straggler) extends nothing, so nobody can keep a silent client alive with copies of its pings.
_PING = """
if ARGV[4] == 'again' and not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return -1 end
if tonumber(ARGV[3]) <= tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0') then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
return 1
"""
# Sent to Redis by its hash, and whole only where Redis does not have it yet.
_PING_HASH = hashlib.sha1(_PING.encode(), usedforsecurity=False).hexdigest()

# After a loss of memory nobody knows when a client last pinged, but it must count as having done so: its lost
# connect answer is not given again.
PINGED_UNKNOWN = 1


def start(connection: str, deadline: float) -> None:
    """Count from now, before the first ping."""
    try:
        own_connection().call("ZADD", DEADLINES, repr(deadline), connection)
    except redis.RedisError as error:
        raise RedisUnavailable from error


def ping(connection: str, deadline: float, timestamp: int) -> bool:
    """Move the deadline; False where ``timestamp`` is not newer than that of the last ping."""
    return _ping(connection, deadline, timestamp, "first") == 1


def ping_again(connection: str, deadline: float, timestamp: int) -> bool:
    """The same for a connection that must still have a deadline; False where it has none, and nothing was done."""
    return _ping(connection, deadline, timestamp, "again") != -1


def _ping(connection: str, deadline: float, timestamp: int, which: str) -> int:
    words = ("2", DEADLINES, PINGS, connection, repr(deadline), str(timestamp), which)
    own = own_connection()
    try:
        try:
            return int(own.call("EVALSHA", _PING_HASH, *words))
        except redis.exceptions.NoScriptError:
            return int(own.call("EVAL", _PING, *words))
    except redis.RedisError as error:
        raise RedisUnavailable from error


def has_pinged(connection: str) -> bool:
    try:
        return bool(redis_client().hexists(PINGS, connection))
    except redis.RedisError as error:
        raise RedisUnavailable from error


def overdue(now: float, most: int) -> list[tuple[str, float]]:
    """The ids overdue at ``now`` with their deadlines, longest overdue first. Costs what is overdue, not what lives."""
    found: Any = redis_client().zrangebyscore(DEADLINES, "-inf", now, start=0, num=most, withscores=True)
    return [(str(connection), float(score)) for connection, score in found]


def deadline(connection: str) -> float | None:
    return redis_client().zscore(DEADLINES, connection)


def deadlines(connections: list[str]) -> dict[str, float]:
    """Deadlines of these connections, for showing; those without one are left out."""
    if not connections:
        return {}
    try:
        scores = redis_client().zmscore(DEADLINES, connections)
    except redis.RedisError as error:
        raise RedisUnavailable from error
    return {name: float(score) for name, score in zip(connections, scores, strict=True) if score is not None}


def forget(connections: Iterable[str]) -> None:
    ids = list(connections)
    if ids:
        with redis_client().pipeline() as pipe:
            pipe.zrem(DEADLINES, *ids)
            pipe.hdel(PINGS, *ids)
            pipe.execute()


def lost_memory() -> bool:
    return redis_client().get(MARKER) != _run_id()


def refill(live: Iterable[tuple[str, float]]) -> None:
    """Give each connection at least the deadline named with it, then set the marker.

    GT: a Redis that was restored from an old dump holds deadlines that have passed while it was away, and one that
    was empty may meanwhile have taken a ping.
    """
    run = _run_id()
    with redis_client().pipeline(transaction=False) as pipe:
        for number, (connection, until) in enumerate(live, start=1):
            pipe.zadd(DEADLINES, {connection: until}, gt=True)
            pipe.hsetnx(PINGS, connection, PINGED_UNKNOWN)
            if number % 1000 == 0:
                pipe.execute()
        pipe.execute()
    redis_client().set(MARKER, run)


def _run_id() -> str:
    return str(redis_client().info("server")["run_id"])
