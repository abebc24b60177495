"""What watches over the sweeps themselves, and over Redis, and what an administrator is told."""

from __future__ import annotations

import pytest
from django.conf import LazySettings
from django.test import Client

from core import clock, nodes
from core.redis_store import redis_client
from tests.admin_site import staff
from tests.conftest import Clock
from tests.connection_rows import many, with_fresh_marker
from tests.factories import Company, found
from tests.protocol_client import NOW
from wgpeers import tasks
from wgpeers.lifecycle import liveness, reaper, sweeps

TIMEOUT = 360


@pytest.fixture
def company(db: None, fixed_clock: Clock) -> Company:
    return found()


def page(client: Client) -> str:
    return client.get("/admin/").content.decode()


@pytest.fixture
def admin(client: Client, company: Company) -> Client:
    staff(client, superuser=True)
    return client


def test_sweeps_that_stop_are_said_on_the_first_page(admin: Client, fixed_clock: Clock) -> None:
    tasks.sweep()
    assert sweeps.late() is None
    fixed_clock.advance(sweeps.LATE)
    assert "no sweep" not in page(admin)
    fixed_clock.step(-7200)  # whatever the time of day is
    fixed_clock.advance(120)
    assert "There has been no sweep for 3 min" in page(admin)
    tasks.sweep()
    assert "no sweep" not in page(admin)


def test_after_a_restart_of_the_machine_nobody_can_tell(
    admin: Client, fixed_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks.sweep()
    monkeypatch.setattr(clock, "BOOT", "another start")
    fixed_clock.advance(3600)
    assert sweeps.late() is None


def test_another_nodes_sweeps_are_missed_here_too(
    admin: Client, fixed_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks.sweep()
    monkeypatch.setattr(clock, "BOOT", "another machine's")
    monkeypatch.setattr(nodes, "ME", "another node")
    fixed_clock.advance(sweeps.LATE + nodes.MAY_DIFFER)
    assert sweeps.late() is None
    fixed_clock.advance(60)
    assert "There has been no sweep for 3 min" in page(admin)


def test_a_sweep_that_fails_is_no_sweep(
    admin: Client, fixed_clock: Clock, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks.sweep()
    url = settings.REDIS_URL
    settings.REDIS_URL = "unix:///nonexistent/redis.sock"
    fixed_clock.advance(120)
    tasks.sweep()
    assert "Redis cannot be reached" in page(admin)
    settings.REDIS_URL = url
    assert sweeps.late() == 120


def test_a_redis_that_may_evict_is_said(admin: Client) -> None:
    redis = redis_client()
    assert "maxmemory" not in page(admin)
    try:
        redis.config_set("maxmemory", "100mb")
        redis.config_set("maxmemory-policy", "allkeys-lru")
        assert "its maxmemory-policy is allkeys-lru" in page(admin)
    finally:
        redis.config_set("maxmemory-policy", "noeviction")
        redis.config_set("maxmemory", "0")


@pytest.mark.parametrize("key", [liveness.DEADLINES, liveness.PINGS])
def test_a_key_of_redis_that_was_evicted_is_filled_again(company: Company, fixed_clock: Clock, key: str) -> None:
    """Before it was noticed only if the marker had gone as well: without deadlines a key lived for ever."""
    rows = many(company, 5)
    with_fresh_marker()
    reaper.sweep(NOW)
    redis_client().delete(key)
    assert liveness.lost_memory()
    assert reaper.sweep(fixed_clock.advance(10)) == 0
    assert not liveness.lost_memory()
    assert len(liveness.deadlines([row.public_id for row in rows])) == 5
    assert not any(liveness.awaits_first_ping(row.public_id, NOW) for row in rows)


def test_single_deadlines_that_are_lost_are_found_in_turn(
    company: Company, fixed_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaper, "CHECKED_AT_ONCE", 2)
    rows = many(company, 5)
    with_fresh_marker()
    reaper.sweep(NOW)
    liveness.forget(row.public_id for row in rows)
    for _ in range(3):
        reaper.sweep(fixed_clock.advance(10))
    found = liveness.deadlines([row.public_id for row in rows])
    assert len(found) == 5
    assert all(NOW + TIMEOUT < until <= NOW + 30 + TIMEOUT for until in found.values())
