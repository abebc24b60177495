"""Ping deadlines, in Redis: a sorted set of connection ids by the Unix second at which each is overdue.

Redis may lose its memory, or come back with an old one. The marker holds the run id of the Redis process that the
deadlines were written to: if it is missing or another, every open connection gets a full deadline before anything
is swept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

import redis

from core.redis_store import RedisUnavailable, own_connection, redis_client

T = TypeVar("T")

DEADLINES = "liveness:deadlines"
PINGS = "liveness:pings"
MARKER = "liveness:marker"

# Ids of ended connections, a blank between two, are published here.
ENDED = "liveness:ended"

# The plaintext timestamp of the newest ping is kept beside the deadline. One that is not newer (a replay, a straggler)
# extends nothing, so nobody can keep a silent client alive with copies of its pings. But for what came through the
# tunnel itself, where nobody else can send: a client whose clock was put back has no newer time for a while. A
# connection that has no deadline gets one only by a ping that is sure of it; the others of that kind are the answer.
_WRITE = """
local unknown = {}
for i = 1, #ARGV, 5 do
    local name, deadline, timestamp, sure, own = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
    if sure == '' and not redis.call('ZSCORE', KEYS[1], name) then
        unknown[#unknown + 1] = name
    else
        local newer = tonumber(timestamp) > tonumber(redis.call('HGET', KEYS[2], name) or '0')
        if newer then redis.call('HSET', KEYS[2], name, timestamp) end
        if newer or own ~= '' then redis.call('ZADD', KEYS[1], deadline, name) end
    end
end
return unknown
"""
# Sent to Redis by its hash, and whole only where Redis does not have it yet.
_WRITE_HASH = hashlib.sha1(_WRITE.encode(), usedforsecurity=False).hexdigest()
# Pings in one message: Redis serves nobody else while it takes them (about 2 ms).
_AT_ONCE = 500

# A member of both keys from when they are filled until they are lost: a Redis that evicts keys takes one as a whole.
SENTINEL = "sentinel"
# Of the connection up to which it was last looked whether each has a deadline.
CHECKED = "liveness:checked"
# After a loss of memory nobody knows when a client last pinged, but it must count as having done so: its lost
# connect answer is not given again.
PINGED_UNKNOWN = 1


def start(connection: str, deadline: float) -> None:
    """Count from now, before the first ping."""
    try:
        own_connection().call("ZADD", DEADLINES, repr(deadline), connection)
    except redis.RedisError as error:
        raise RedisUnavailable from error


@dataclass(frozen=True, slots=True)
class Ping:
    """One accepted ping: it moves the connection's deadline to ``deadline`` (Unix seconds) unless ``timestamp``, the
    ping's own time, is not newer than the last one's. ``sure``: the database said just now that it is open. ``own``: it
    came through the connection's own tunnel, and counts whatever its time."""

    connection: str
    deadline: float
    timestamp: int
    sure: bool
    own: bool = False

    def after(self, other: Ping | None) -> Ping:
        """The two in one, as if ``other`` had been written first."""
        if other is None:
            return self
        newer = self if self.timestamp > other.timestamp else other
        counted = [each.deadline for each in (self, other) if each.own or each is newer]
        return replace(newer, deadline=max(counted), sure=self.sure or other.sure, own=self.own or other.own)


def write(pings: Iterable[Ping]) -> list[str]:
    """Move the deadlines; the connections that have none and were not sure. Raise ``RedisUnavailable``."""
    unknown: list[str] = []
    for some in _pieces(pings, _AT_ONCE):
        words = [word for each in some for word in _words(each)]
        unknown += _run_script(words)
    return unknown


def _words(ping: Ping) -> tuple[str, ...]:
    marks = ("sure" if ping.sure else "", "own" if ping.own else "")
    return (ping.connection, repr(ping.deadline), str(ping.timestamp), *marks)


def _run_script(words: list[str]) -> list[str]:
    own, keys = own_connection(), ("2", DEADLINES, PINGS)
    try:
        try:
            return list(own.call("EVALSHA", _WRITE_HASH, *keys, *words))
        except redis.exceptions.NoScriptError:
            return list(own.call("EVAL", _WRITE, *keys, *words))
    except redis.RedisError as error:
        raise RedisUnavailable from error


def _pieces(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while some := list(islice(left, size)):
        yield some


def awaits_first_ping(connection: str, now: float) -> bool:
    """Whether it has not pinged, and its deadline, of which no sweep need have heard yet, is to come."""
    try:
        with redis_client().pipeline(transaction=False) as pipe:
            pipe.hexists(PINGS, connection)
            pipe.zscore(DEADLINES, connection)
            pinged, due = pipe.execute()
    except redis.RedisError as error:
        raise RedisUnavailable from error
    return not pinged and due is not None and due > now


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
    """Their deadlines; and tell whoever answers pings that they have ended."""
    ids = list(connections)
    if ids:
        with redis_client().pipeline() as pipe:
            pipe.zrem(DEADLINES, *ids)
            pipe.hdel(PINGS, *ids)
            pipe.publish(ENDED, " ".join(ids))
            pipe.execute()


def lost_memory() -> bool:
    with redis_client().pipeline(transaction=False) as pipe:
        pipe.get(MARKER)
        pipe.zscore(DEADLINES, SENTINEL)
        pipe.hexists(PINGS, SENTINEL)
        marker, deadlines, pings = pipe.execute()
    return marker != _run_id() or deadlines is None or not pings


def refill(live: Iterable[tuple[str, float]]) -> None:
    """Give each connection at least the deadline named with it, then set the marker.

    GT: a Redis that was restored from an old dump holds deadlines that have passed while it was away, and one that
    was empty may meanwhile have taken a ping.
    """
    run = _run_id()
    redis_client().zadd(DEADLINES, {SENTINEL: "+inf"})
    redis_client().hset(PINGS, SENTINEL, PINGED_UNKNOWN)
    with redis_client().pipeline(transaction=False) as pipe:
        for number, (connection, until) in enumerate(live, start=1):
            pipe.zadd(DEADLINES, {connection: until}, gt=True)
            pipe.hsetnx(PINGS, connection, PINGED_UNKNOWN)
            if number % 1000 == 0:
                pipe.execute()
        pipe.execute()
    redis_client().set(MARKER, run)


def add_missing(live: Iterable[tuple[str, int]], now: float) -> list[str]:
    """Give each of these connections (with its ping timeout) that has no deadline a full one; which they were."""
    found: list[str] = []
    for some in _pieces(live, 1000):
        scores: Any = redis_client().zmscore(DEADLINES, [name for name, _ in some])
        missing = {name: now + timeout for (name, timeout), score in zip(some, scores, strict=True) if score is None}
        if missing:
            redis_client().zadd(DEADLINES, missing, nx=True)
            found += missing
    return found


def move(live: Iterable[tuple[str, int]], step: float, now: float) -> None:
    """The clock was set by ``step`` seconds, to ``now``: move the deadlines of these connections (each with its ping
    timeout) that were written before. None is later than a ping at this moment could have made it: that, and not when
    it was written, tells those which pings have written since."""
    for some in _pieces(live, 1000):
        scores: Any = redis_client().zmscore(DEADLINES, [name for name, _ in some])
        moved = {}
        for (name, timeout), score in zip(some, scores, strict=True):
            if score is not None and (step > 0 or score > now + timeout):
                moved[name] = min(float(score) + step, now + timeout)
        if moved:
            # A ping that comes at this moment wins.
            redis_client().zadd(DEADLINES, moved, xx=True, gt=step > 0, lt=step < 0)


def _run_id() -> str:
    return str(redis_client().info("server")["run_id"])
