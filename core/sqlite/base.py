"""A transaction that waits for SQLite's write lock asks for it again every millisecond or two.

SQLite itself asks less and less often, up to ten times a second. A transaction here takes a few milliseconds, so
whoever has waited for a while would miss many turns, which those who came later take: of some thousand connects that
came at once, the unluckiest waited for a quarter of a second.
"""

from __future__ import annotations

import random
import sqlite3
import time

from django.db import OperationalError
from django.db.backends.sqlite3 import base

LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class DatabaseWrapper(base.DatabaseWrapper):
    """``OPTIONS["timeout"]``: seconds after which a transaction gives up, as in Django's own."""

    def _start_transaction_under_autocommit(self) -> None:
        longest = float(self.settings_dict["OPTIONS"].get("timeout", 5.0))
        until = time.monotonic() + longest
        self._wait_inside(0.0)
        try:
            while not self._begin(last=time.monotonic() >= until):
                time.sleep(random.uniform(0.001, 0.002))  # noqa: S311 (no secret; so that two do not keep step)
        finally:
            self._wait_inside(longest)  # for statements outside of transactions

    def _begin(self, *, last: bool) -> bool:
        """Whether the lock was free. Raise ``OperationalError`` for anything else, and if it is the ``last`` time."""
        try:
            # IMMEDIATE takes the write lock now: a transaction that reads and then writes waits for its turn instead
            # of failing with "database is locked" when another one wrote in between.
            self.cursor().execute("BEGIN IMMEDIATE")
        except OperationalError as error:
            cause = error.__cause__
            if last or getattr(cause, "sqlite_errorcode", None) not in LOCKED:
                raise
            return False
        return True

    def _wait_inside(self, seconds: float) -> None:
        self.ensure_connection()
        self.connection.execute(f"PRAGMA busy_timeout = {int(1000 * seconds)}")
