"""How long web waits for SQLite's write lock: each process writes down its longest wait."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

_longest = 0.0  # seconds


def watch(sender: object, connection: BaseDatabaseWrapper, **kwargs: object) -> None:
    """For Django's signal of a new database connection. A transaction takes the lock with its BEGIN IMMEDIATE."""
    connection.execute_wrappers.append(_timed)


def _timed(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
    if not sql.startswith("BEGIN"):
        return execute(sql, params, many, context)
    began = time.perf_counter()
    try:
        return execute(sql, params, many, context)
    finally:
        _note(time.perf_counter() - began)


def _note(seconds: float) -> None:
    global _longest
    if seconds > _longest:
        _longest = seconds
        _file(Path(os.environ["VPN_VAR"]), str(os.getpid())).write_text(repr(seconds))


def _file(var: Path, process: str) -> Path:
    return var / "database" / f"lock_wait.{process}"  # where web may write


def longest(var: Path) -> float:
    """Seconds, of all processes of the installation in ``var``."""
    return max(float(each.read_text()) for each in var.glob(str(_file(Path(), "*"))))
