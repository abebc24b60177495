"""Deleting what has served its time, however much of it there is."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from .pace import Pace, Stride


def delete_old(rows: QuerySet[Any], pace: Pace) -> int:
    """Delete ``rows`` in short transactions, until the turn of ``pace`` is over; how many it were.

    What hangs on each must be little. Who calls says by ``rows`` what is old, and an index must find it.
    """
    deleted, unordered, stride = 0, rows.order_by(), Stride()
    while keys := list(unordered.values_list("pk", flat=True)[: stride.size]):
        with stride.measured(len(keys), pace.steady):
            # Asked again: a row may have been used since.
            unordered.filter(pk__in=keys).delete()
        deleted += len(keys)
        pace.breathe()
        if pace.over:
            break
    return deleted
