"""The clock of the control side: read once where a request or a task begins, and passed down from there."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

source: Callable[[], float] = time.time


def now() -> float:
    """Unix seconds."""
    return source()


def moment(seconds: float) -> datetime:
    """The same instant as the database keeps it."""
    return datetime.fromtimestamp(seconds, UTC)
