"""Doing things at the same moment, each in a thread with a database connection of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import connections

from tests.lab import HANGING

T = TypeVar("T")


def together(calls: Sequence[Callable[[], T]]) -> list[T | Exception]:
    """What each call gave or raised, in order. None begins before all are ready."""
    ready = threading.Barrier(len(calls), timeout=HANGING)

    def one(call: Callable[[], T]) -> T | Exception:
        try:
            ready.wait()
            return call()
        except Exception as error:
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(HANGING) for future in [pool.submit(one, call) for call in calls]]
