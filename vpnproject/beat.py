"""The beat's scheduler, which goes by a clock that nobody sets, and on one control node at a time.

Celery's own goes by the time of day: after it was set back by an hour, nothing would be due for an hour, also after a
restart, since it keeps on disk when each task ran last.

Each control node has a beat. The one that has the lease sends what is due; the others look each second whether it still
does. For a moment two may: one that was frozen and goes on. So what a beat sends must be harmless when it comes twice.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
from celery.beat import Scheduler
from celery.schedules import schedule

from core import clock, nodes, signs
from core.leases import BEAT, Lease
from core.redis_store import redis_client

log = logging.getLogger(__name__)

_BEGIN = datetime(2000, 1, 1, tzinfo=UTC)  # any day
# Seconds without a sign of the beat that has the lease, after which another one takes it.
PATIENCE = 8.0
LOOK_EVERY = 1.0


def _now() -> datetime:
    return _BEGIN + timedelta(seconds=clock.steady())


def every(seconds: float) -> schedule:
    """For ``beat_schedule``."""
    return schedule(timedelta(seconds=seconds), nowfun=_now)


class SteadyScheduler(Scheduler):
    """Nothing is kept over a restart, nor handed over: each task is due when it starts, and when it takes over."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.lease = Lease(BEAT, PATIENCE, nodes.LABEL)
        self._had = False
        super().__init__(*arguments, **options)

    def setup_schedule(self) -> None:
        super().setup_schedule()
        for entry in self.schedule.values():
            entry.last_run_at = _now() - entry.schedule.run_every

    def tick(self, *arguments: Any, **options: Any) -> float:
        """Called again and again; what is due is sent in it."""
        pause = float(super().tick(*arguments, **options)) if self._is_mine() else LOOK_EVERY
        signs.note(redis_client(), "beat")
        return min(pause, LOOK_EVERY)

    def _is_mine(self) -> bool:
        mine = False
        with suppress(redis.RedisError):  # without it nothing could be sent either
            nodes.appear(redis_client())
            mine = self.lease.hold()
        if mine != self._had:
            log.warning("this beat %s", "beats" if mine else "waits for its turn")
        self._had = mine
        return mine

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Sent no more where it took so long to get here that another one may have taken over."""
        if self.lease.is_fresh():
            super().apply_entry(entry, producer=producer)

    def close(self) -> None:
        """Asked to end: the next one need not wait."""
        with suppress(redis.RedisError):
            self.lease.release()
        super().close()
