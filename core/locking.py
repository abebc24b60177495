"""Rows that a person edits while machines write other columns of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from django.core.exceptions import ObjectDoesNotExist
from django.db import connection, models

from .sql import lock_row

_TURNS, _SETTING_UP = 0x77677670, 0x77677671  # any numbers; nobody else in this database has such locks


class SharedRow(models.Model):
    """A late writer must not undo what was written since it read: a plain ``save()`` of an existing row leaves the
    ``machine_fields`` alone. They are written by ``update()``, or by naming them in ``update_fields``."""

    machine_fields: ClassVar[frozenset[str]] = frozenset()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding and kwargs.get("update_fields") is None and not kwargs.get("force_insert"):
            fields = [field for field in self._meta.concrete_fields if not field.primary_key]
            kwargs["update_fields"] = [field.name for field in fields if field.name not in self.machine_fields]
        super().save(*args, **kwargs)


def take_turns() -> None:
    """Let the transactions that call this go one after the other: for what is checked against many rows, those included
    that another one is just adding, so that no constraint and no row's lock could do it.

    On SQLite they do so in any case.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_TURNS])


@contextmanager
def alone_setting_up() -> Iterator[None]:
    """One process at a time, of all on all machines: two control nodes may be started at the same moment, on an empty
    database. On SQLite there is one machine, on which ``bin/run`` is alone."""
    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [_SETTING_UP])
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [_SETTING_UP])


def lock(row: models.Model) -> None:
    """What two transactions do for one user (connecting, getting an address) goes one after the other, so that each
    sees what the other one made, and neither waits for the other's second step.

    SQLite locks the whole database when the transaction begins. Elsewhere the row is locked, so that rows that only
    point at it are let through (no_key), and with nothing joined: an order by another table would lock that too.

    Raise ``ObjectDoesNotExist`` where it is gone; SQLite does not look.
    """
    if connection.features.has_select_for_update and not lock_row(row._meta.db_table, row.pk):
        raise ObjectDoesNotExist
