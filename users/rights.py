"""Columns that say who may connect: whoever changes them, by whichever door, has everybody checked again."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from django.db import models, transaction

from core import task_names
from core.changes import after_commit
from core.names import with_key

M = TypeVar("M", bound=models.Model)


class RightsQuerySet(models.QuerySet[M]):
    """Who loses a right by ``update()`` or ``bulk_update()``, which know no ``save``, is disconnected too. ``rights``:
    the columns that say who may connect."""

    rights: ClassVar[frozenset[str]]

    def update(self, **changes: Any) -> int:
        changes = with_key(changes)
        if not self.rights & changes.keys():
            return super().update(**changes)
        with transaction.atomic():
            after_commit(task_names.ENFORCE)
            return super().update(**changes)
