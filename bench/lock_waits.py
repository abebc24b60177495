"""How long web waits for SQLite's write lock: each process writes down its longest wait."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from django.db.backends.base.base import BaseDatabaseWrapper

_longest = 0.0  # seconds


def watch(sender: object, connection: BaseDatabaseWrapper, **kwargs: object) -> None:
    """For Django's signal of a new database connection. A transaction takes the lock with its BEGIN IMMEDIATE."""
    begin = getattr(connection, "_start_transaction_under_autocommit", None)
    if begin is not None:  # SQLite
        vars(connection)["_start_transaction_under_autocommit"] = lambda: _timed(begin)


def _timed(begin: Callable[[], None]) -> None:
    began = time.perf_counter()
    try:
        begin()
    finally:
        _note(time.perf_counter() - began)


def _note(seconds: float) -> None:
    global _longest
    if seconds > _longest:
        _longest = seconds
        _file(Path(os.environ["VPN_VAR"]), str(os.getpid())).write_text(repr(seconds))


def _file(var: Path, process: str) -> Path:
    return var / f"lock_wait.{process}"


def longest(var: Path) -> float:
    """Seconds, of all processes of the installation in ``var``."""
    return max(float(each.read_text()) for each in var.glob(_file(var, "*").name))
