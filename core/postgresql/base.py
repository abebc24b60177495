"""A connection is for a server that takes changes.

Where ``DATABASE_URL`` names several servers, one of them is primary, and which one changes: when it dies, its standby
is promoted. libpq looks for it at each new connection (``target_session_attrs``). A connection that is there already
may be to a server that was primary once and only reads now: it would answer everything and take nothing, for as long
as its process lives. So it is closed at the first refusal, and whoever comes next has a new one.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import psycopg
from django.db.backends.postgresql import base
from django.db.utils import DatabaseErrorWrapper, OperationalError

READ_ONLY = "25006"  # SQLSTATE read_only_sql_transaction


class Errors(DatabaseErrorWrapper):
    """What every statement's errors pass."""

    wrapper: Any

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if getattr(exc_value, "sqlstate", None) == READ_ONLY:
            # Also within a transaction, which can do nothing more.
            self.wrapper.close()
            raise OperationalError("this database server takes no changes any more") from exc_value
        super().__exit__(exc_type, exc_value, traceback)


class DatabaseWrapper(base.DatabaseWrapper):
    @property
    def wrap_database_errors(self) -> DatabaseErrorWrapper:
        return Errors(self)

    def is_usable(self) -> bool:
        """Asked at a request's first statement, in Django's own words with "SELECT 1"."""
        if self.connection is None:
            return False
        try:
            with self.connection.cursor() as cursor:
                found = cursor.execute("SHOW transaction_read_only").fetchone()
        except psycopg.Error:
            return False
        return bool(found == ("off",))
