"""The beat's scheduler, which goes by a clock that nobody sets.

Celery's own goes by the time of day: after it was set back by an hour, nothing would be due for an hour, also after a
restart, since it keeps on disk when each task ran last.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from celery.beat import Scheduler
from celery.schedules import schedule

from core import clock, signs
from core.redis_store import redis_client

_BEGIN = datetime(2000, 1, 1, tzinfo=UTC)  # any day


def _now() -> datetime:
    return _BEGIN + timedelta(seconds=clock.steady())


def every(seconds: float) -> schedule:
    """For ``beat_schedule``."""
    return schedule(timedelta(seconds=seconds), nowfun=_now)


class SteadyScheduler(Scheduler):
    """Nothing is kept over a restart: each task is due when it starts."""

    def setup_schedule(self) -> None:
        super().setup_schedule()
        for entry in self.schedule.values():
            entry.last_run_at = _now() - entry.schedule.run_every

    def tick(self, *arguments: Any, **options: Any) -> float:
        """Called again and again; what is due is sent in it."""
        pause = float(super().tick(*arguments, **options))
        signs.note(redis_client(), "beat")
        return pause
