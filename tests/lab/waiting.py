"""How long tests wait: until something is so, or until it is taken to hang."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Time limits are this many times as long where the whole machine is emulated (tests/kernel).
PATIENCE = float(os.environ.get("LAB_PATIENCE", "1"))
# Seconds after which what is waited for is taken to hang. It judges no speed: a test that passes never waits so long,
# and however busy the machine is, this is enough.
HANGING = 120.0 * PATIENCE
# Seconds to wait for an answer that must not come, and for one that is asked for again and again until it comes.
NEVER, ONE_TRY = 0.3 * PATIENCE, 1.0 * PATIENCE


def until(condition: Callable[[], T], timeout: float = HANGING, every: float = 0.02) -> T:
    """Ask ``condition`` until its answer is true, and return that; raise ``TimeoutError`` after ``timeout`` seconds.

    There are ``every`` seconds between two answers, and more where asking itself is work, such as a program that is
    started: whoever waits leaves two thirds of one processor to what is waited for.
    """
    deadline = time.monotonic() + timeout
    while True:
        before = _processor_seconds()
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            raise TimeoutError(f"not so within {timeout:g} s: {getattr(condition, '__name__', condition)}")
        time.sleep(max(every, 2 * (_processor_seconds() - before)))


def _processor_seconds() -> float:
    """What this thread has used, and every process that was started here and has ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_THREAD, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)
