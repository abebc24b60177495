"""The database emptied after a test that commits, in a few statements.

Django's own way (``flush``) deletes from every table, and then makes permissions and content types anew, which takes
as long as most tests do. Few tables have rows in them, and those two have always the same.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connection, transaction

KEPT = {
    ContentType: ("app_label", "model"),
    Permission: ("content_type__app_label", "content_type__model", "codename", "name"),
}


def kept_rows() -> list[Any]:
    return [sorted(model._default_manager.values_list(*fields)) for model, fields in KEPT.items()]


def leave(kept: list[Any]) -> None:
    """Leave the database as migrations did. ``kept`` are the rows that were kept then; if a test changed them, it is
    Django's own way."""
    if kept_rows() == kept:
        empty()
    else:
        call_command("flush", interactive=False, verbosity=0)


def empty() -> None:
    """Delete every row that is not kept."""
    with connection.cursor() as cursor:
        cursor.execute(_which_have_rows())
        names = [name for (name,) in cursor.fetchall()]
        # Foreign keys are judged when it ends, so that any order will do.
        with transaction.atomic():
            for name in names:
                cursor.execute(f"DELETE FROM {connection.ops.quote_name(name)}")  # noqa: S608 (a table's name)


@cache
def _which_have_rows() -> str:
    kept = {model._meta.db_table for model in KEPT}
    names = set(connection.introspection.django_table_names(only_existing=True, include_views=False)) - kept
    each = (f"SELECT '{name}' WHERE EXISTS (SELECT 1 FROM {connection.ops.quote_name(name)})" for name in sorted(names))  # noqa: S608
    return " UNION ALL ".join(each)
