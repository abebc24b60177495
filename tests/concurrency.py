"""Doing things at the same moment, each in a thread with a database connection of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import connections

T = TypeVar("T")
LONGEST = 60  # seconds until a test that waits for ever fails


def together(calls: Sequence[Callable[[], T]]) -> list[T | Exception]:
    """What each call gave or raised, in order. None begins before all are ready."""
    ready = threading.Barrier(len(calls), timeout=LONGEST)

    def one(call: Callable[[], T]) -> T | Exception:
        try:
            ready.wait()
            return call()
        except Exception as error:
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(LONGEST) for future in [pool.submit(one, call) for call in calls]]


def until(condition: Callable[[], object]) -> None:
    """Wait for what another thread does, ten seconds at most."""
    tick = threading.Event()
    for _ in range(1000):
        if condition():
            return
        tick.wait(0.01)
    raise AssertionError("it did not happen")
