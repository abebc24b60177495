"""Whoever waits for SQLite's write lock asks for it again every millisecond or two.

SQLite itself asks less and less often, at last ten times a second. A transaction here takes a few milliseconds, so
whoever has waited for a while would miss many turns, which those who came later take: of some thousand connects that
came at once, the unluckiest waited for a quarter of a second.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from typing import Any

from django.db.backends.sqlite3 import base


class DatabaseWrapper(base.DatabaseWrapper):
    """``OPTIONS["timeout"]``: seconds for which a statement waits, as in Django's own."""

    # Whether the connection was found to be for reading alone: it was opened while the disk was so, and stays so
    # whatever becomes of the disk.
    reads_only = False

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        connection = super().get_new_connection(conn_params)
        self.reads_only = False
        connection.execute("PRAGMA busy_timeout = 0")  # the cursors wait
        return connection

    def create_cursor(self, name: Any = None) -> Any:
        longest = float(self.settings_dict["OPTIONS"].get("timeout", 5.0))
        return self.connection.cursor(factory=lambda connection: Cursor(connection, longest, self))

    def close_if_unusable_or_obsolete(self) -> None:
        """Asked at the end of each request."""
        if self.reads_only and not self.in_atomic_block:
            self.close()
        super().close_if_unusable_or_obsolete()


class Cursor(base.SQLiteCursorWrapper):
    """``longest``: seconds for which it waits for the lock."""

    def __init__(self, connection: sqlite3.Connection, longest: float, wrapper: DatabaseWrapper) -> None:
        super().__init__(connection)
        self._longest = longest
        self._wrapper = wrapper

    def execute(self, query: str, params: Any = None) -> Any:
        return self._patiently(lambda: super(Cursor, self).execute(query, params))

    def executemany(self, query: str, param_list: Any) -> Any:
        rows = list(param_list)  # to be read again
        return self._patiently(lambda: super(Cursor, self).executemany(query, rows))

    def _patiently(self, statement: Callable[[], Any]) -> Any:
        until = time.monotonic() + self._longest
        while True:
            try:
                return statement()
            except sqlite3.OperationalError as error:
                code = error.sqlite_errorcode & 0xFF
                if code == sqlite3.SQLITE_READONLY:
                    self._wrapper.reads_only = True
                # Who holds the lock is never busy; within a transaction that only reads, waiting would help nobody.
                busy = code == sqlite3.SQLITE_BUSY and not self.connection.in_transaction
                if not busy or time.monotonic() >= until:
                    raise
            time.sleep(random.uniform(0.001, 0.002))  # noqa: S311 (no secret; so that two do not keep step)
