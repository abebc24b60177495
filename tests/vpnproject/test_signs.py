"""Workers and beat show signs of life while they do their work."""

from __future__ import annotations

import pytest
from celery.app.trace import build_tracer
from django.conf import LazySettings

from core.redis_store import redis_client
from core.signs import key
from vpnproject.beat import SteadyScheduler
from vpnproject.celery import app


@pytest.fixture(autouse=True)
def _none_before() -> None:
    redis_client().delete(key())


def counts() -> dict[str, str]:
    return {str(name): str(value) for name, value in redis_client().hgetall(key()).items()}


@pytest.mark.parametrize(("worker", "noted"), [("control@a", {"control": "1"}), ("keys@a", {"keys": "1"}), ("x@a", {})])
def test_a_worker_that_ends_a_task_shows_life_even_if_the_task_failed(worker: str, noted: dict[str, str]) -> None:
    def fail() -> None:
        raise ValueError

    task = app.task(name=f"test.fail.{worker}")(fail)
    request = {"id": "1", "task": task.name, "hostname": worker, "args": (), "kwargs": {}}

    build_tracer(task.name, task, app=app, hostname=worker)("1", (), {}, request)
    assert counts() == noted


def test_the_beat_shows_life_with_each_turn_and_needs_no_redis_to_go_on(settings: LazySettings) -> None:
    scheduler = SteadyScheduler(app, lazy=True)
    scheduler.data = {}
    scheduler.tick()
    scheduler.tick()
    assert counts() == {"beat": "2"}
    settings.REDIS_URL = "unix:///nonexistent/redis.sock"
    scheduler.tick()
