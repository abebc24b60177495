"""Rows that a person edits while machines write other columns of them."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models


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
