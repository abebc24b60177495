"""Work that waits for others, in a thread of its own: whoever begins it goes on at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django.db import connections

log = logging.getLogger(__name__)


def is_ending() -> bool:
    """Whether this process ends, and waits for its threads: long work stops where it loses nothing."""
    return not threading.main_thread().is_alive()


class OneAtATime:
    """One thread at most. A process ends only after it, so it should look at ``is_ending``."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._busy = threading.Lock()

    def begin(self, work: Callable[[], object]) -> bool:
        """False, and nothing is done, while the one before is at it."""
        if not self._busy.acquire(blocking=False):
            return False
        try:
            threading.Thread(target=self._run, args=(work,), name=self._name, daemon=False).start()
        except RuntimeError:  # no more threads
            self._busy.release()
            raise
        return True

    def wait(self, timeout: float) -> bool:
        """Until nothing is done any more; whether that came within so many seconds."""
        free = self._busy.acquire(timeout=timeout)
        if free:
            self._busy.release()
        return free

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception:
            log.exception("%s failed", self._name)
        finally:
            connections.close_all()
            self._busy.release()
