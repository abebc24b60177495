"""Waiting for SQLite's write lock: often enough to get it soon, and not for ever."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from django.db import OperationalError, connections

from core.sqlite.base import DatabaseWrapper
from tests.concurrency import together
from tests.lab import HANGING, NEVER
from vpnproject.env import database

pytestmark = pytest.mark.django_db  # lets the test open databases


def opened(path: Path, timeout: float) -> DatabaseWrapper:
    config = connections["default"].settings_dict | database(path)
    config |= {"NAME": str(path), "OPTIONS": config["OPTIONS"] | {"timeout": timeout}, "ATOMIC_REQUESTS": False}
    return DatabaseWrapper(config, alias="other")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    return tmp_path / "db.sqlite3"


def begin(wrapper: DatabaseWrapper) -> None:
    wrapper.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)


def test_a_transaction_that_gets_no_lock_gives_up_after_the_timeout(path: Path) -> None:
    holder, waiting = opened(path, 5), opened(path, 0.2)
    begin(holder)
    began = time.monotonic()
    with pytest.raises(OperationalError, match="locked"):
        begin(waiting)
    assert time.monotonic() - began >= 0.2
    holder.rollback()
    begin(waiting)
    waiting.rollback()
    for each in (holder, waiting):
        each.close()


def test_whoever_waits_gets_the_lock_when_it_is_free(path: Path) -> None:
    holder = opened(path, 5)
    begin(holder)
    got, waiting = threading.Event(), threading.Event()

    def wait() -> None:
        wrapper = opened(path, HANGING)
        wrapper.connect()
        waiting.set()
        begin(wrapper)
        got.set()
        wrapper.rollback()
        wrapper.close()

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(HANGING)
    assert not got.is_set()
    holder.rollback()
    assert got.wait(HANGING)
    thread.join()
    holder.close()


def test_another_fault_is_raised_at_once(path: Path) -> None:
    wrapper = opened(path, HANGING)
    begin(wrapper)
    wrapper.autocommit = True  # as if none were open
    with pytest.raises(OperationalError, match="within a transaction"):
        begin(wrapper)
    wrapper.connection.rollback()
    wrapper.close()


@pytest.mark.parametrize("statement", ["execute", "executemany"])
def test_a_statement_outside_of_a_transaction_waits_too(path: Path, statement: str) -> None:
    holder, waiting = opened(path, 5), opened(path, HANGING)
    holder.cursor().execute("CREATE TABLE t (a)")
    begin(holder)
    done = threading.Event()

    def write() -> None:
        cursor = waiting.cursor()
        if statement == "execute":
            cursor.execute("INSERT INTO t VALUES (%s)", [1])
        else:
            cursor.executemany("INSERT INTO t VALUES (%s)", [[1], [2]])
        done.set()
        waiting.close()

    thread = threading.Thread(target=write)
    waiting.inc_thread_sharing()
    thread.start()
    assert not done.wait(NEVER)
    holder.rollback()
    assert done.wait(HANGING)
    thread.join()
    assert len(holder.cursor().execute("SELECT a FROM t").fetchall()) == (1 if statement == "execute" else 2)
    holder.close()


def test_of_many_writers_none_waits_for_ever(path: Path) -> None:
    """Those with a transaction and those without: each has its turn."""
    opened(path, 5).cursor().execute("CREATE TABLE t (a)")

    def transactions() -> None:
        wrapper = opened(path, HANGING)
        for _ in range(100):
            begin(wrapper)
            wrapper.cursor().execute("INSERT INTO t VALUES (1)")
            wrapper.commit()
            wrapper.set_autocommit(True)
        wrapper.close()

    def statements() -> None:
        wrapper = opened(path, HANGING)
        for _ in range(100):
            wrapper.cursor().execute("INSERT INTO t VALUES (2)")
        wrapper.close()

    assert together([transactions, transactions, statements, statements]) == [None] * 4
    assert opened(path, 5).cursor().execute("SELECT count(*) FROM t").fetchone() == (400,)


def test_a_transaction_takes_the_lock_when_it_begins(path: Path) -> None:
    """Else one that reads and then writes would fail where another wrote in between."""
    holder, waiting = opened(path, 5), opened(path, 0.1)
    begin(holder)
    with pytest.raises(OperationalError, match="locked"):
        waiting.cursor().execute("CREATE TABLE t (a)")
    holder.rollback()
    for each in (holder, waiting):
        each.close()
