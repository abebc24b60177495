"""What load balancers and monitoring are told: by every host name, without a sign-in, and without a secret."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import OperationalError, connection
from django.test import Client

from core.leases import BEAT, Lease
from core.redis_store import redis_client
from tests.conftest import Clock
from tests.lab import RedisServer
from vpnproject import health
from wgpeers.lifecycle import sweeps


@pytest.fixture(autouse=True)
def looks_anew() -> Iterator[None]:
    health._looks.forget()
    yield
    health._looks.forget()


@pytest.fixture
def working(fixed_clock: Clock) -> Clock:
    """A beat has its lease, and a sweep was done."""
    assert Lease(BEAT, 8.0, "here").hold()
    sweeps.note()
    return fixed_clock


def ask(**how: Any) -> tuple[int, bool, dict[str, str]]:
    response = Client().get("/readyz", **how)
    said = response.json()
    return response.status_code, said["ready"], said["checks"]


@pytest.mark.django_db
@pytest.mark.usefixtures("working")
def test_who_can_work_says_so_under_every_host_name() -> None:
    for name in ("192.0.2.1", "[2001:db8::1]:443", "gate_1", ""):
        status, good, checks = ask(HTTP_HOST=name)
        assert (status, good) == (200, True), checks
        assert set(checks) == {"database", "migrations", "redis", "beat", "sweeps"}
        assert set(checks.values()) == {"ok"}
        assert Client().get("/healthz", HTTP_HOST=name).content == b"ok\n"


def broken_database(patch: pytest.MonkeyPatch) -> None:
    def cursor(*_: object) -> None:
        raise OperationalError("password=secret")

    patch.setattr(connection, "cursor", cursor)


def nobody_beats(_: pytest.MonkeyPatch) -> None:
    redis_client().delete(f"lease:{BEAT}")


BROKEN: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "database": broken_database,
    "beat": nobody_beats,
}


@pytest.mark.django_db
@pytest.mark.usefixtures("working")
@pytest.mark.parametrize("part", BROKEN)
def test_a_part_that_fails_is_named_and_nothing_else_of_it(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BROKEN[part](monkeypatch)
    status, good, checks = ask()
    assert (status, good) == (503, False)
    assert checks.pop(part) != "ok"
    checks.pop("migrations")  # they are in the database
    assert set(checks.values()) == {"ok"}
    assert "secret" not in str(checks)
    # A process whose database is away is not to be restarted.
    assert Client().get("/healthz").status_code == 200


@pytest.mark.django_db
def test_sweeps_that_no_longer_come_are_late(working: Clock) -> None:
    working.advance(sweeps.LATE + 1)
    assert ask()[2]["sweeps"] == "late"


@pytest.mark.django_db
def test_without_redis_nobody_is_ready(working: Clock, settings: LazySettings) -> None:
    with RedisServer() as server:
        settings.REDIS_URL = server.url
        assert Lease(BEAT, 8.0, "here").hold()
        sweeps.note()
        assert ask()[0] == 200
        server.kill()
        assert ask()[1]  # for a second the answer is that of before
        working.advance(health.KEPT)
        status, good, checks = ask()
    assert (status, good) == (503, False)
    assert {checks[name] for name in ("redis", "beat", "sweeps")} == {"unreachable"}
    assert checks["database"] == "ok"


@pytest.mark.django_db
@pytest.mark.usefixtures("working")
def test_a_database_that_is_older_than_the_code_is_not_ready() -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'wgpeers'")
    assert ask()[2]["migrations"] == "missing"


@pytest.mark.django_db
@pytest.mark.usefixtures("working")
def test_many_who_ask_cost_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def look() -> dict[str, str]:
        looks.append(1)
        return {"database": "ok"}

    monkeypatch.setattr(health, "look", look)
    assert {ask()[0] for _ in range(50)} == {200}
    assert len(looks) == 1
