"""The clock by which a host measures how long something lasts. Nobody sets it, and it goes on during suspend."""

from __future__ import annotations

import time


def steady() -> float:
    """Seconds since this machine was started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
