"""What a list would change: everybody in it held against who is there, with all that is wrong in all of its lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import ValidationError

from core.names import composed, key_of
from core.pace import AIM_IN_WEB, Pace
from users.models import Group, Organization, VpnUser

from .reading import Line, Problem

_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True, slots=True)
class Person:
    """One line, understood: primary keys of organization and groups. None: the list does not say."""

    line: int
    organization: int
    name: str
    email: str | None
    groups: tuple[int, ...] | None
    enabled: bool | None


@dataclass(slots=True)
class Plan:
    new: list[Person] = field(default_factory=list)
    changed: list[Person] = field(default_factory=list)
    same: int = 0
    problems: list[Problem] = field(default_factory=list)


def plan(lines: Sequence[Line]) -> Plan:
    """Reads a few whole columns of the database and writes nothing."""
    known = _Known(lines)
    made, seen, pace = Plan(), dict[tuple[int, str], int](), Pace(aim=AIM_IN_WEB)
    for line in lines:
        pace.breathe()
        person = _understand(line, known, made.problems)
        if person is None:
            continue
        who = (person.organization, key_of(person.name))
        if earlier := seen.get(who):
            made.problems.append(Problem(line.number, f"{person.name} is in line {earlier} already.", "name"))
            continue
        seen[who] = line.number
        existing = known.users.get(who)
        if existing is None:
            made.new.append(person)
        elif known.differs(existing, person):
            made.changed.append(person)
        else:
            made.same += 1
    made.problems.sort(key=lambda problem: problem.line)
    return made


class _Known:
    """Who and what is there, by the keys of their names."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self.organizations = dict(Organization.objects.values_list("name_key", "pk"))
        self.groups = dict(Group.objects.values_list("name_key", "pk"))
        wanted = {self.organizations.get(key_of(line.cells.get("organization", ""))) for line in lines} - {None}
        rows = VpnUser.objects.filter(organization__in=wanted)
        columns = ("organization", "name_key", "pk", "name", "email", "enabled")
        self.users = {(row[0], row[1]): row[2:] for row in rows.values_list(*columns)}
        self.in_groups: dict[int, set[int]] = {}
        through = VpnUser.groups.through.objects.filter(vpnuser__organization__in=wanted)
        for user, group in through.values_list("vpnuser", "group"):
            self.in_groups.setdefault(user, set()).add(group)

    def differs(self, existing: tuple[Any, ...], person: Person) -> bool:
        pk, _name, email, enabled = existing
        return (
            person.email not in (None, email)
            or person.enabled not in (None, enabled)
            or (person.groups is not None and set(person.groups) != self.in_groups.get(pk, set()))
        )


def _understand(line: Line, known: _Known, problems: list[Problem]) -> Person | None:
    """One line; None, and what is wrong with it in ``problems``."""
    wrong: list[Problem] = []
    cells = line.cells

    def say(column: str, text: str) -> None:
        wrong.append(Problem(line.number, text, column))

    organization = known.organizations.get(key_of(cells["organization"]))
    if not cells["organization"]:
        say("organization", "This cell is empty.")
    elif organization is None:
        say("organization", f"There is no organization {cells['organization']!r}. Create it first.")
    name = composed(cells["name"])
    email = cells.get("email")
    _check_fields(VpnUser(name=name, email=email or ""), say)
    groups = _groups(cells["groups"], known, say) if "groups" in cells else None
    enabled = _enabled(cells["enabled"], say) if "enabled" in cells else None
    problems += wrong
    if wrong or organization is None:
        return None
    return Person(line.number, organization, name, email, groups, enabled)


def _check_fields(user: VpnUser, say: Any) -> None:
    others = [each.name for each in VpnUser._meta.fields if each.name not in ("name", "email")]
    try:
        user.clean_fields(exclude=others)
    except ValidationError as error:
        for column, said in error.message_dict.items():
            say(column, " ".join(said))


def _groups(cell: str, known: _Known, say: Any) -> tuple[int, ...]:
    """An unknown one is a problem: leaving it out would quietly change who may connect where."""
    names = dict.fromkeys(name.strip() for name in cell.split(",") if name.strip())
    if unknown := [name for name in names if key_of(name) not in known.groups]:
        say("groups", f"There is no group {', '.join(unknown)}. Create it first.")
    return tuple(sorted({known.groups[key_of(name)] for name in names if key_of(name) in known.groups}))


def _enabled(cell: str, say: Any) -> bool | None:
    """Yes or no in the usual spellings. Anything else is a problem, so that a typing mistake lets nobody in."""
    text = cell.casefold()
    if text in _YES or text in _NO:
        return text in _YES
    say("enabled", f"{cell!r} is neither yes nor no; write one of {', '.join(_YES + _NO)}.")
    return None
