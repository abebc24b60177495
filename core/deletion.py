"""Deleting what much hangs on: counted before, and carried out in steps.

What cascades is found by the models' own relations. History is not among it: it keeps names as text, and outlives what
it is about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from django.apps import apps
from django.contrib.admin.models import DELETION
from django.db import models
from django.db.models import CASCADE, QuerySet

from core import jobs
from core.models import Job

KIND = "core.delete"
# With no more rows than this it is done at once.
FEW = 200

Objects = QuerySet[Any]
# What must go before an object goes, apart from what cascades: ``ender(object, most)`` ends at most so many and says
# how many it were.
Ender = Callable[[Any, int], int]
_enders: dict[str, list[Ender]] = {}
# Done, by primary keys, as soon as a deletion is asked for, so that nothing is let in while it goes on.
Retire = Callable[[list[int]], object]
_retire: dict[str, Retire] = {}


def ends_first(label: str, ender: Ender) -> None:
    _enders.setdefault(label, []).append(ender)


def retires(label: str, retire: Retire) -> None:
    _retire[label] = retire


def _owned(model: type[models.Model]) -> Iterator[tuple[type[models.Model], str]]:
    """The models whose rows go with a row of ``model``, and the field that says with which. (A relation's own table
    is deleted in one statement, however long; it is not counted.)"""
    for relation in model._meta.related_objects:
        if relation.on_delete is CASCADE and not relation.related_model._meta.auto_created:
            yield relation.related_model, relation.field.name


def counts(objects: Objects) -> dict[type[models.Model], int]:
    """How many rows of which model would go with ``objects``, themselves left out."""
    found: dict[type[models.Model], int] = {}

    def add(model: type[models.Model], path: str, seen: tuple[type[models.Model], ...]) -> None:
        for related, field in _owned(model):
            if related in seen:
                continue
            way = f"{field}__{path}" if path else field
            if number := related._default_manager.filter(**{f"{way}__in": objects}).count():
                found[related] = found.get(related, 0) + number
                add(related, way, (*seen, related))

    add(objects.model, "", (objects.model,))
    return found


def delete(objects: Objects, title: str, administrator: Any) -> Job | None:
    """Delete them: at once where that is little, else by a job, which is returned."""
    # In the order in which they were made, whatever order they are shown in.
    keys = list(objects.order_by("pk").values_list("pk", flat=True))
    total = len(keys) + sum(counts(objects).values())
    label = objects.model._meta.label_lower
    arguments = {"model": label, "keys": keys}
    if total > FEW:
        if retire := _retire.get(label):
            retire(keys)
        return jobs.create(KIND, title, arguments, total, administrator)
    jobs.at_once(KIND, arguments, administrator)
    return None


@jobs.kind(KIND)
def step(job: Job, most: int) -> jobs.Step:
    """Of one object after the other first what goes with it, then itself."""
    model = apps.get_model(job.arguments["model"])
    keys, place, left = job.arguments["keys"], job.place or 0, most
    while left > 0 and place < len(keys):
        row = model._default_manager.filter(pk=keys[place]).first()
        if row is not None and (gone := _thin_out(row, left)):
            left -= gone
            continue
        if row is not None:
            jobs.record(job, [row], DELETION)
            row.delete()
        place, left = place + 1, left - 1
    return jobs.Step(None if place == len(keys) else place, most - left)


def _thin_out(row: models.Model, most: int) -> int:
    """Delete at most so many of the rows that would go with it; 0 when none is left."""
    for ender in _enders.get(row._meta.label_lower, ()):
        if ended := ender(row, most):
            return ended
    for related, field in _owned(type(row)):
        owned = related._default_manager.filter(**{field: row}).order_by("pk")
        if keys := list(owned.values_list("pk", flat=True)[:most]):
            related._default_manager.filter(pk__in=keys).delete()
            return len(keys)
    return 0
