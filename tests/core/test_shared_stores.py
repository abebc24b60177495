"""A second control node joins only where it finds the same database and the same Redis."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from core import shared_stores
from core.shared_stores import of_database, of_redis, what_keeps_to_one_machine
from vpnproject import env


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////var/db.sqlite3",
        "postgres:///run/postgresql/vpn",
        "postgres://vpn@/vpn?host=/run/postgresql",
        "postgres://vpn:secret@localhost/vpn",
        "postgres://vpn:secret@127.0.0.1:5433/vpn",
        "postgres://vpn:secret@[::1]/vpn",
        "postgres://vpn:secret@db1.example.com,127.0.0.1/vpn",
    ],
)
def test_a_database_of_one_machine_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    (words,) = of_database(env.database(Path("/x")))
    assert "Set DATABASE_URL" in words
    assert "secret" not in words


@pytest.mark.parametrize(
    "url", ["postgres://vpn@db.example.com/vpn", "postgres://vpn@10.0.0.1:5432,[fd00::2]:5432/vpn", "psql://u@h/n"]
)
def test_a_database_that_others_reach_is_fine(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    assert list(of_database(env.database(Path("/x")))) == []


@pytest.mark.parametrize(
    "url",
    [
        "unix:///run/redis.sock?db=0",
        "unix://user:secret@/run/redis.sock",
        "redis://localhost:6379/0",
        "redis://:secret@127.0.0.1/0",
        "redis://[::1]:6379/0",
        "sentinel://:secret@10.0.0.1,127.0.0.1:26379/vpn",
        "sentinel://[::1]:26379,[fd00::1]/vpn/0",
    ],
)
def test_a_redis_of_one_machine_is_refused(url: str) -> None:
    (words,) = of_redis(url)
    assert "Set REDIS_URL" in words
    assert "secret" not in words


@pytest.mark.parametrize(
    "url", ["redis://:pw@10.0.0.1:6379/0", "rediss://redis.example.com", "sentinel://a:p@10.0.0.1,[fd00::1]:1/vpn/0"]
)
def test_a_redis_that_others_reach_is_fine(url: str) -> None:
    assert list(of_redis(url)) == []


def test_both_are_asked_with_the_settings_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    given = SimpleNamespace(DATABASES={"default": {"ENGINE": "core.sqlite"}}, REDIS_URL="unix:///run/redis.sock")
    monkeypatch.setattr(shared_stores, "settings", given)
    assert [words.split(" is ")[0] for words in what_keeps_to_one_machine()] == ["The database", "Redis"]
