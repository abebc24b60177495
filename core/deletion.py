"""Deleting what much hangs on: counted before, and carried out in steps.

What cascades is found by the models' own relations, and goes from its leaves: first what hangs on what hangs on a row,
so that no single row takes much along. History is not among it: it keeps names as text, and outlives what it is about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from django.apps import apps
from django.contrib.admin.models import DELETION
from django.db import models, transaction
from django.db.models import CASCADE, ProtectedError, QuerySet
from django.db.models.deletion import Collector
from django.db.models.signals import pre_delete

from core import jobs
from core.models import Job
from core.pace import Room

KIND = "core.delete"
# With no more rows than this it is done at once.
FEW = 100
# So many are retired at once whatever is deleted of them later.
RETIRED_AT_ONCE = 50
# So many reasons of a kind are said for which a row stays.
REASONS = 20
# Rows with which others go, or which somebody hears of, in one transaction: Django loads each and asks what goes too.
LOADED_AT_ONCE = 10

Objects = QuerySet[Any]
# What must end before an object goes, apart from what cascades: the rows concerned (of all ``objects``), and
# ``ender(object, room)``, which ends as many of its as there is room for, and says how many it were.
Ending = Callable[[Objects], Objects]
Ender = Callable[[Any, Room], int]
_enders: dict[str, list[tuple[Ending, Ender]]] = {}
# Done, by primary keys, before anything is deleted, so that nothing is let in while it goes on.
Retire = Callable[[list[int]], object]
_retire: dict[str, Retire] = {}
# Why some of ``objects`` must stay: a sentence for each reason, with the name of the object and what to do first.
Keeper = Callable[[Objects], list[str]]
_keepers: dict[type[models.Model], Keeper] = {}
_last: set[str] = set()
_members: set[str] = set()


def ends_first(label: str, rows: Ending, ender: Ender) -> None:
    _enders.setdefault(label, []).append((rows, ender))


def retires(label: str, retire: Retire) -> None:
    _retire[label] = retire


def keeps(model: type[models.Model], keeper: Keeper) -> None:
    """Rows of ``model`` for which ``keeper`` has a reason are deleted by no door: pages say the reason before anybody
    tries, jobs leave the row out, and all else gets a ``ProtectedError``."""

    def keep(instance: models.Model, **kwargs: Any) -> None:
        if reasons := reasons_to_stay(model._default_manager.filter(pk=instance.pk)):
            raise ProtectedError(" ".join(reasons), {instance})

    _keepers[model] = keeper
    pre_delete.connect(keep, sender=model, weak=False, dispatch_uid=f"keeps {model._meta.label}")


def reasons_to_stay(objects: Objects) -> list[str]:
    keeper = _keepers.get(objects.model)
    return keeper(objects) if keeper else []


def goes_last(*labels: str) -> None:
    """Rows of these models protect what they belong to, and are few: each goes with that, in one transaction."""
    _last.update(labels)


def takes_members(*labels: str) -> None:
    """Rows of these models' relations to others (many to many, and few but for these) are many: they go in steps."""
    _members.update(labels)


def _owned(model: type[models.Model]) -> Iterator[tuple[type[models.Model], str]]:
    """The models whose rows go with a row of ``model``, and the field that says with which."""
    relation: Any
    for relation in model._meta.related_objects:
        related = relation.related_model
        if relation.on_delete is CASCADE and not related._meta.auto_created:
            yield related, relation.field.name
        elif relation.many_to_many and model._meta.label_lower in _members:
            yield relation.through, relation.field.m2m_reverse_field_name()


def _hanging(objects: Objects) -> dict[type[models.Model], int]:
    """How many rows of which model hang on ``objects``, and on those that do."""
    found: dict[type[models.Model], int] = {}

    def add(owner: type[models.Model], path: str, above: tuple[type[models.Model], ...]) -> None:
        for related, field in _owned(owner):
            if related in above:
                continue
            way = f"{field}__{path}" if path else field
            rows = related._default_manager.filter(**{f"{way}__in": objects.order_by().values("pk")})
            if number := rows.count():
                found[related] = found.get(related, 0) + number
                add(related, way, (*above, related))

    add(objects.model, "", (objects.model,))
    return found


def counts(objects: Objects) -> dict[type[models.Model], int]:
    """How many rows of which model would go with ``objects``, themselves left out; without rows of relations, which
    nobody knows by a name."""
    return {model: number for model, number in _hanging(objects).items() if not model._meta.auto_created}


def endings(objects: Objects) -> dict[type[models.Model], int]:
    """How many rows of which model would be ended, and kept as history."""
    rows = [ending(objects) for ending, _ in _enders.get(objects.model._meta.label_lower, ())]
    return {each.model: number for each in rows if (number := each.count())}


def _size(objects: Objects) -> int:
    """How many rows a deletion is work for."""
    return objects.count() + sum(_hanging(objects).values()) + sum(endings(objects).values())


def delete(objects: Objects, title: str, administrator: Any) -> tuple[Job | None, list[str]]:
    """Delete them: at once where that is little, else by a job, which is returned; and why some of them stayed, or all
    of them where one has to stay from the beginning."""
    if reasons := reasons_to_stay(objects):
        return None, reasons
    # In the order in which they were made, whatever order they are shown in.
    keys = list(objects.order_by("pk").values_list("pk", flat=True))
    total = _size(objects)
    label = objects.model._meta.label_lower
    # What goes in one transaction need not be retired before.
    arguments = {"model": label, "keys": keys, "retire": total > jobs.AT_ONCE}
    if total <= FEW:
        return None, jobs.at_once(KIND, arguments, administrator)
    with transaction.atomic():
        # Of few objects at once, whatever hangs on them; of many in the first steps.
        if (retire := _retire.get(label)) and len(keys) <= RETIRED_AT_ONCE:
            retire(keys)
        return jobs.create(KIND, title, arguments, total, administrator), []


@jobs.kind(KIND)
def step(job: Job, room: Room) -> jobs.Step:
    """First all are retired (``retire``). Then of one after the other first what goes with it, then itself. ``place``:
    how many are retired, and how many have gone."""
    label, keys = job.arguments["model"], job.arguments["keys"]
    retired, gone = job.place or (0, 0)
    retire = _retire.get(label) if job.arguments["retire"] else None
    if retire is not None and retired < len(keys):
        for key in room.each(keys[retired:]):
            retire([key])
        return jobs.Step((retired + room.taken, 0), 0)
    done, notes = 0, list[str]()
    while gone < len(keys) and (not done or (room.left and done < room.most)):
        row = apps.get_model(label)._default_manager.filter(pk=keys[gone]).first()
        # Asked when it was begun, too; somebody may need it since.
        reasons = reasons_to_stay(type(row)._default_manager.filter(pk=row.pk)) if row is not None else []
        if row is not None and not reasons:
            if thinned := _thin_out(row, room):
                done += thinned
                continue
            jobs.record(job, [row], DELETION)
            row.delete()
        notes += reasons
        gone, done = gone + 1, done + 1
    return jobs.Step(None if gone == len(keys) else (retired, gone), done, notes)


def _thin_out(row: models.Model, room: Room) -> int:
    """End or delete some of the rows that would go with it; how many, 0 when none is left."""
    for _, ender in _enders.get(row._meta.label_lower, ()):
        if ended := ender(row, room):
            return ended
    return _delete_hanging(type(row), [row.pk], room, (type(row),))


def _delete_hanging(
    owner: type[models.Model], keys: list[int], room: Room, above: tuple[type[models.Model], ...]
) -> int:
    """Delete some of the rows that hang on the rows ``keys`` of ``owner``, and those first that hang on them. Whatever
    the size, it looks at ``room.most`` rows of a model."""
    for related, field in _owned(owner):
        if related in above or related._meta.label_lower in _last:
            continue
        rows = related._default_manager.filter(**{f"{field}__in": keys}).order_by()
        most = room.most if Collector(rows.db).can_fast_delete(rows) else min(room.most, LOADED_AT_ONCE)
        if some := list(rows.values_list("pk", flat=True)[:most]):
            deeper = _delete_hanging(related, some, room, (*above, related))
            if not deeper:
                related._default_manager.filter(pk__in=some).delete()
            return deeper or len(some)
    return 0
