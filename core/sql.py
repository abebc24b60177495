"""Rows of a model read and written by SQL that is made once: for the few ways that are walked so often that the ORM
would take most of their time to write the same statement again.

A model stays the only place that knows its columns. Works on the default database; nothing is remembered but SQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, Generic, TypeVar

from django.db import OperationalError, connection, models
from django.db.backends.utils import CursorWrapper

M = TypeVar("M", bound=models.Model)
Row = Sequence[Any]
# Fields whose values every database takes as they are.
_PLAIN = {models.CharField, models.BigIntegerField, models.BooleanField, models.ForeignKey}
Value = bool | int | float | str | bytes | datetime | None


def _cursor() -> CursorWrapper:
    """SQLite keeps what it has compiled by itself."""
    made: CursorWrapper = getattr(connection, "prepared_cursor", connection.cursor)()
    return made


def execute(sql: str, *values: Value) -> int:
    """How many rows it concerned."""
    with _cursor() as cursor:
        cursor.execute(sql, values)
        return int(cursor.rowcount)


def fetch_all(sql: str, *values: Value) -> list[Row]:
    with _cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())


def fetch_one(sql: str, *values: Value) -> Row | None:
    with _cursor() as cursor:
        cursor.execute(sql, values)
        row: Row | None = cursor.fetchone()
    return row


def lock_row(table: str, key: int) -> bool:
    """Hold the row until the transaction ends, as ``select_for_update(no_key=True)`` does; False if there is none."""
    return fetch_one(f'SELECT 1 FROM "{table}" WHERE id = %s FOR NO KEY UPDATE', key) is not None


def is_deadlock(error: OperationalError) -> bool:
    """Whether this transaction waited for one that waited for it, so that PostgreSQL ended it: it may be tried again.
    (SQLSTATE 40P01, PostgreSQL's appendix A.)"""
    return getattr(error.__cause__, "sqlstate", None) == "40P01"


def moment_value(moment: datetime) -> Value:
    """A time as this database takes it in a statement of our own."""
    value: Value = connection.ops.adapt_datetimefield_value(moment)
    return value


class Table(Generic[M]):
    """One model's columns, always all of them and in the model's order."""

    def __init__(self, model: type[M]) -> None:
        self._model = model
        self._fields = list(model._meta.concrete_fields)
        self._names = [field.attname for field in self._fields]
        self._written = [field for field in self._fields if not field.primary_key]
        columns = ", ".join(f'"{field.column}"' for field in self._written)
        marks = ", ".join(["%s"] * len(self._written))
        self.insert_sql = f'INSERT INTO "{model._meta.db_table}" ({columns}) VALUES ({marks})'

    def __len__(self) -> int:
        return len(self._fields)

    def columns(self, alias: str) -> str:
        """For a SELECT that has the table as ``alias``."""
        return ", ".join(f'{alias}."{field.column}"' for field in self._fields)

    def load(self, row: Row) -> M:
        """The model's instance from what ``columns`` gave."""
        values = list(row)
        for position, expression, converters in self._converters:
            value = values[position]
            for converter in converters:
                value = converter(value, expression, connection)
            values[position] = value
        return self._model.from_db("default", self._names, values)

    def values(self, instance: M) -> list[Any]:
        """What ``insert_sql`` takes. Nothing that a field would fill in by itself (``auto_now_add``) is filled in."""
        found = []
        for field in self._written:
            value = getattr(instance, field.attname)
            found.append(value if type(field) in _PLAIN else field.get_db_prep_save(value, connection))
        return found

    def insert(self, instance: M) -> M:
        """As ``save()`` of a new row without signals; the instance gets its primary key."""
        ((instance.pk,),) = fetch_all(f"{self.insert_sql} RETURNING id", *self.values(instance))
        instance._state.adding = False
        instance._state.db = "default"
        return instance

    @cached_property
    def _converters(self) -> list[tuple[int, Any, list[Any]]]:
        """Of each column whose value is another one in Python: where, and what makes it so."""
        found = []
        for position, field in enumerate(self._fields):
            expression = field.get_col(self._model._meta.db_table)
            converters = [
                *connection.ops.get_db_converters(expression),
                *field.get_db_converters(connection),
            ]
            if converters:
                found.append((position, expression, converters))
        return found
