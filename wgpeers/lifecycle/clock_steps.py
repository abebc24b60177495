"""The machine's clock was set: deadlines and sessions move with it.

Each sweep compares the time of day with a clock that nobody sets. What differs since the sweep before is a step, or a
clock that runs away, and everything that was written down in the old time is moved by as much. So a step ends nobody
who pings, and keeps nobody who is silent for longer than from one sweep to the next.

With several control nodes it is one node's clock that was set, and most of what is written down is in the others'
time. Whether that was wrong before or is now, nobody can tell from here. So nothing is moved; after a long step
everybody gets a full deadline, as after a loss of memory, and no deadline is left that no ping could have made. Which
node's clock is so wrong that it may not sweep at all: see ``core.nodes``.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import timedelta

import redis
from django.db.models import F

from core import clock, nodes
from core.clock import moment
from core.pace import Pace, Stride
from core.redis_store import RedisUnavailable, redis_client
from wgpeers.models import Connection, State

from . import liveness

log = logging.getLogger(__name__)

LEAST = 2.0  # seconds; less is what a clock is put right by all the time
SHOWN_FOR = 86400  # seconds
_LAST = "clock:step"
_SEEN = f"clock:seen:{clock.BOOT}"


@dataclass(frozen=True, slots=True)
class Step:
    """``seconds``: forward if positive. ``time``: when it was noticed, in the new time."""

    seconds: float
    time: float


def follow(now: float) -> None:
    """Move everything by what the clock was set since the last call. Raise ``RedisError``."""
    ahead = now - clock.steady()
    alone = len(nodes.living(redis_client())) < 2
    before = redis_client().get(_SEEN)
    if before is not None:
        seen = json.loads(before)
        step = ahead - seen["ahead"]
        if abs(step) < LEAST:
            return
        log.warning("this machine's clock was set by %+.0f s", step)
        if alone:
            _move_sessions(step, seen["now"] + step, now)
            _move_deadlines(step, now)
        elif abs(step) > nodes.MAY_DIFFER:
            _give_full_deadlines(step, now)
        redis_client().set(_LAST, json.dumps({"seconds": step, "time": now}), ex=SHOWN_FOR)
    # Last: a sweep that dies before it moves everything once more, and that is better than not at all.
    redis_client().set(_SEEN, json.dumps({"ahead": ahead, "now": now}))


def last() -> Step | None:
    """The last step of the last day, for showing. Raise ``RedisUnavailable``."""
    try:
        text = redis_client().get(_LAST)
    except redis.RedisError as error:
        raise RedisUnavailable from error
    return Step(**json.loads(text)) if text else None


def _move_sessions(step: float, first_new: float, now: float) -> None:
    """Of all connections but those made since the step, whose times are new ones (from ``first_new`` on)."""
    timed = Connection.objects.exclude(state=State.ENDED).filter(session_ends__isnull=False)
    old = timed.exclude(created__range=(moment(first_new), moment(now)))
    keys, pace, stride = list(old.values_list("pk", flat=True)), Pace(), Stride()
    while some := keys[: stride.size]:
        del keys[: len(some)]
        with stride.measured(len(some), pace.steady):
            Connection.objects.filter(pk__in=some).update(session_ends=F("session_ends") + timedelta(seconds=step))
        pace.breathe()


def _give_full_deadlines(step: float, now: float) -> None:
    if step < 0:  # none is later than a ping at this moment could have made it
        _move_deadlines(step, now)
    live = Connection.objects.exclude(state=State.ENDED).values_list("public_id", "server__ping_timeout")
    liveness.refill((connection, now + timeout) for connection, timeout in live.iterator())


def _move_deadlines(step: float, now: float) -> None:
    live = Connection.objects.exclude(state=State.ENDED).values_list("public_id", "server__ping_timeout")
    liveness.move(live.iterator(), step, now)
