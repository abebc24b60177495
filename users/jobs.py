"""Long work on people, step by step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple
from typing import Any

from django.contrib.admin.models import ADDITION, CHANGE
from django.contrib.auth.models import User as Administrator
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db import IntegrityError, transaction

from core import deletion, jobs
from core.models import Job
from core.pace import Room

from . import services
from .lists.planning import Person
from .models import Organization, VpnUser

SET_ENABLED, IMPORT = "users.set_enabled", "users.import"


@jobs.kind(SET_ENABLED)
def set_enabled(job: Job, room: Room) -> jobs.Step:
    """Enable or disable (``enabled``) the users of ``keys``."""
    keys, place, enabled = job.arguments["keys"], job.place or 0, bool(job.arguments["enabled"])
    some = keys[place : place + room.most]
    users = VpnUser.objects.select_related("organization").in_bulk(some)
    changed = services.set_enabled((users[key] for key in room.each(some) if key in users), enabled)
    said = "Enabled." if enabled else "Disabled."
    jobs.record(job, changed, CHANGE, said)
    end = place + room.taken
    return jobs.Step(None if end >= len(keys) else end, room.taken)


def import_list(people: Sequence[Person], title: str, notes: Sequence[str], counts: dict[str, int], by: Any) -> Job:
    """A draft: nothing is imported before somebody has said yes."""
    arguments = {"people": [astuple(person) for person in people], "counts": counts, "notes": list(notes)}
    return jobs.create(IMPORT, title, arguments, len(people), by, draft=True)


def people_of(job: Job, most: int | None = None) -> list[Person]:
    """Those of an import that are still to come."""
    start = job.place or 0
    rows = job.arguments["people"][start : None if most is None else start + most]
    return [
        Person(line, organization, name, email, None if groups is None else tuple(groups), enabled)
        for line, organization, name, email, groups, enabled in rows
    ]


@jobs.kind(IMPORT)
def import_step(job: Job, room: Room) -> jobs.Step:
    """Create or change the next people. Who cannot be (their organization is gone by now) is noted and left out."""
    place, total = job.place or 0, len(job.arguments["people"])
    some = people_of(job, room.most)
    new = some[: max(0, job.arguments["counts"]["new"] - place)]
    made = _create(job, new) if new else 0
    notes = [] if made else _put_each(job, room.each(new or some))
    done = made or room.taken
    return jobs.Step(None if place + done >= total else place + done, done, notes)


def _create(job: Job, people: Sequence[Person]) -> int:
    """Those who were not there when the list was read, all of them; how many. None where somebody is by now, or cannot
    be: then they have to be looked at one by one."""
    try:
        with transaction.atomic():
            made = services.put_new(people)
    except (ValidationError, IntegrityError, ObjectDoesNotExist):
        return 0
    jobs.record(job, made, ADDITION, "Imported.")
    return len(made)


def _put_each(job: Job, people: Iterable[Person]) -> list[str]:
    notes = []
    for person in people:
        try:
            with transaction.atomic():
                user, created = services.put(person)
        except (ValidationError, IntegrityError, ObjectDoesNotExist) as error:
            said = " ".join(error.messages) if isinstance(error, ValidationError) else "something changed meanwhile"
            notes.append(f"line {person.line}, {person.name}: left out, {said}")
            continue
        jobs.record(job, [user], ADDITION if created else CHANGE, "Imported.")
    return notes


# Nobody who is about to be deleted is let in meanwhile, nor with less than what they were asked for.
deletion.goes_last("users.enrolment", "users.factoroverride")
deletion.takes_members("users.group")
deletion.retires("users.vpnuser", lambda keys: VpnUser.objects.filter(pk__in=keys).update(enabled=False))
deletion.retires("auth.user", lambda keys: Administrator.objects.filter(pk__in=keys).update(is_active=False))
deletion.retires("users.organization", lambda keys: Organization.objects.filter(pk__in=keys).update(enabled=False))
