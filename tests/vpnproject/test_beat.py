"""When the beat's tasks are due: by a clock that nobody sets."""

from __future__ import annotations

import pytest
from django.conf import LazySettings

from tests.conftest import Clock
from tests.connection_rows import queued
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


def sent() -> list[str]:
    return [task for task, _ in queued()]


def tick_for(fixed_clock: Clock, seconds: int, *schedulers: SteadyScheduler) -> None:
    """Let time pass; each of them does what is due."""
    for _ in range(seconds):
        for each in schedulers:
            while each.tick() == 0:
                pass
        fixed_clock.advance(1)


@pytest.fixture
def two(fixed_clock: Clock) -> tuple[SteadyScheduler, SteadyScheduler]:
    return SteadyScheduler(celery_app), SteadyScheduler(celery_app)


def test_of_two_beats_one_sends(two: tuple[SteadyScheduler, SteadyScheduler], fixed_clock: Clock) -> None:
    tick_for(fixed_clock, 60, *two)
    assert sent().count("wgpeers.sweep") == 6
    assert [each.lease.is_fresh() for each in two] == [True, False]


def test_a_beat_that_dies_is_followed_within_seconds(
    two: tuple[SteadyScheduler, SteadyScheduler], fixed_clock: Clock
) -> None:
    first, second = two
    tick_for(fixed_clock, 5, first, second)
    sent()
    tick_for(fixed_clock, 10, second)
    assert set(sent()) >= {"wgpeers.sweep", "wgpeers.take_reports", "wgpeers.converge_all"}
    tick_for(fixed_clock, 3, first, second)  # it was only frozen
    assert sent().count("wgpeers.take_reports") == 3


def test_a_beat_that_ends_is_followed_at_once(two: tuple[SteadyScheduler, SteadyScheduler], fixed_clock: Clock) -> None:
    first, second = two
    tick_for(fixed_clock, 5, first, second)
    sent()
    first.close()
    tick_for(fixed_clock, 1, second)
    assert "wgpeers.sweep" in sent()


def test_a_beat_that_is_frozen_before_it_sends_does_not_send(
    two: tuple[SteadyScheduler, SteadyScheduler], fixed_clock: Clock
) -> None:
    first, second = two
    tick_for(fixed_clock, 1, first, second)
    sent()
    fixed_clock.advance(1)
    assert first.lease.hold()
    tick_for(fixed_clock, 10, second)
    first.apply_entry(first.schedule["sweep"])
    assert sent().count("wgpeers.sweep") == 1  # the other one's


def test_without_redis_it_waits_and_goes_on_when_it_is_back(
    scheduler: SteadyScheduler, fixed_clock: Clock, settings: LazySettings
) -> None:
    url, settings.REDIS_URL = settings.REDIS_URL, "unix:///nonexistent/redis.sock"
    assert scheduler.tick() == 1
    settings.REDIS_URL = url
    tick_for(fixed_clock, 1, scheduler)
    assert "wgpeers.sweep" in sent()
