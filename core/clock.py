"""The clock of the control side: read once where a request or a task begins, and passed down from there."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

source: Callable[[], float] = time.time
# Nobody sets this one, and it goes on during suspend.
steady_source: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
# Of this start of this machine: its steady clock begins anew with the next.
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def now() -> float:
    """Unix seconds."""
    return source()


def steady() -> float:
    """Seconds since this machine was started: for how long something took, whatever became of ``now`` meanwhile."""
    return steady_source()


def moment(seconds: float) -> datetime:
    """The same instant as the database keeps it."""
    return datetime.fromtimestamp(seconds, UTC)
