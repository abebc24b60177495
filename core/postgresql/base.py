"""A connection is for a server that takes changes.

Where ``DATABASE_URL`` names several servers, one of them is primary, and which one changes: when it dies, its standby
is promoted. libpq looks for it at each new connection (``target_session_attrs``). A connection that is there already
may be to a server that was primary once and only reads now: it would answer everything and take nothing, for as long
as its process lives. So it is closed at the first refusal, and whoever comes next has a new one.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import psycopg
from django.db.backends.postgresql import base
from django.db.backends.postgresql.operations import DatabaseOperations
from django.db.backends.utils import CursorWrapper
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


class PreparedCursor(psycopg.Cursor[Any]):
    """Every statement is prepared on its connection, and sent by name from then on: to parse and to plan one of a
    connect's takes the server longer than to answer it. For the few that are always the same text; psycopg keeps 100
    of them for each connection."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        return super().execute(query, params, prepare=True, **options)


class Operations(DatabaseOperations):
    def last_executed_query(self, cursor: Any, sql: Any, params: Any) -> str:
        """Of one that was sent by its name, psycopg no longer has the text: the statement without its values."""
        return super().last_executed_query(cursor, sql, params) or str(sql)


class DatabaseWrapper(base.DatabaseWrapper):
    ops_class = Operations

    def get_connection_params(self) -> dict[str, Any]:
        # Without a number psycopg would prepare none at all. Django's own cursors never ask for it.
        return {**super().get_connection_params(), "prepare_threshold": 1}

    def prepared_cursor(self) -> CursorWrapper:
        """As ``cursor()``, for statements that are prepared. Their values are sent apart from them, and of which type a
        text or NULL is, the server finds by where it stands."""
        self.ensure_connection()
        with self.wrap_database_errors:
            cursor: Any = PreparedCursor(self.connection)
        return self.make_debug_cursor(cursor) if self.queries_logged else self.make_cursor(cursor)

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
