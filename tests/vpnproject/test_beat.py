"""When the beat's tasks are due: by a clock that nobody sets."""

from __future__ import annotations

import pytest

from tests.conftest import Clock
from vpnproject import celery_app
from vpnproject.beat import SteadyScheduler


@pytest.fixture
def scheduler(fixed_clock: Clock) -> SteadyScheduler:
    return SteadyScheduler(celery_app)


def due(scheduler: SteadyScheduler) -> set[str]:
    return {name for name, entry in scheduler.schedule.items() if entry.is_due().is_due}


def test_everything_is_due_at_the_start(scheduler: SteadyScheduler) -> None:
    assert due(scheduler) == set(scheduler.schedule) == set(celery_app.conf.beat_schedule)


@pytest.mark.parametrize("step", [-3600, 3600, -86400 * 3650])
def test_setting_the_clock_makes_nothing_late_and_nothing_early(
    scheduler: SteadyScheduler, fixed_clock: Clock, step: float
) -> None:
    for name in scheduler.schedule:
        scheduler.schedule[name] = scheduler.reserve(scheduler.schedule[name])
    assert due(scheduler) == set()
    fixed_clock.step(step)
    assert due(scheduler) == set()
    fixed_clock.advance(10)
    assert due(scheduler) == {"take reports", "sweep", "resume jobs"}


def test_the_heap_is_in_the_order_of_the_steady_clock(scheduler: SteadyScheduler, fixed_clock: Clock) -> None:
    """What Celery works with: after a step the next task is as near as before."""
    for name in scheduler.schedule:
        scheduler.schedule[name] = scheduler.reserve(scheduler.schedule[name])
    fixed_clock.step(-3600)
    scheduler._heap = None
    assert scheduler.tick() <= 1
