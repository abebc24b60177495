"""The rules of each model: what cannot work is refused here, in words, whether it comes from a form, an import, a
command or code that calls ``full_clean``; and what is only odd is asked about.

Models know this registry and not the rules; the rules know the models, and are loaded when the app is ready. So a
model's rule may look at any other model. A rule changes nothing of the row: ``normalize()`` of the model has spelled
it in its one way before. It says all that is wrong, not the first of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import models


@dataclass(frozen=True, slots=True)
class Mistake:
    """What cannot work, and the field that must change."""

    field: str
    message: str

    def error(self) -> ValidationError:
        return ValidationError(self.message, code="cannot_work")


@dataclass(frozen=True, slots=True)
class Oddity:
    """What works, but is hardly meant. ``code`` is stable; ``subject`` is what is odd: confirmed for one network is not
    confirmed for the next."""

    field: str
    message: str
    code: str
    subject: str

    @property
    def key(self) -> str:
        return f"{self.code} {self.subject}"

    def error(self) -> ValidationError:
        return OddError(self)


class OddError(ValidationError):
    """Whoever means it says so, and is not asked again."""

    def __init__(self, oddity: Oddity) -> None:
        super().__init__(oddity.message, code=oddity.code)
        self.oddity = oddity


Finding = Mistake | Oddity
M = TypeVar("M", bound=models.Model)
Rule = Callable[[M], Iterable[Finding]]
_rules: dict[str, Rule[Any]] = {}
# Of each model, what is asked also by a plain ``save`` that changes one of these fields.
_save_rules: dict[str, list[tuple[Rule[Any], tuple[str, ...]]]] = {}


def rule(model: type[M]) -> Callable[[Rule[M]], Rule[M]]:
    """Make a function the rule of ``model``. It yields what is wrong."""

    def register(function: Rule[M]) -> Rule[M]:
        if model._meta.label in _rules:
            raise ImproperlyConfigured(f"{model._meta.label} has two rules.")
        _rules[model._meta.label] = function
        return function

    return register


def save_rule(model: type[M], *fields: str) -> Callable[[Rule[M]], Rule[M]]:
    """A rule that protects somebody else's network: beside being asked with the model's rule, it is asked by every
    ``save`` of a row that is new or has another value in one of ``fields``."""

    def register(function: Rule[M]) -> Rule[M]:
        _save_rules.setdefault(model._meta.label, []).append((function, fields))
        return function

    return register


def findings(row: models.Model) -> list[Finding]:
    """All that is wrong or odd with the row. A model whose rule was never loaded raises ``ImproperlyConfigured``:
    nothing passes unjudged."""
    found = _rules.get(row._meta.label)
    if found is None:
        raise ImproperlyConfigured(f"{row._meta.label} has no rule.")
    every = [*found(row), *(each for asked, _ in _save_rules.get(row._meta.label, ()) for each in asked(row))]
    return list(dict.fromkeys(every))  # a save rule may say what the rule has said


def judge(row: models.Model, meant: Collection[str] = ()) -> list[Oddity]:
    """Raise ``ValidationError`` where the row cannot work, or is odd and neither the code nor the key of that is among
    ``meant``. Return what is odd and meant."""
    every = findings(row)
    odd = [each for each in every if isinstance(each, Oddity) and (each.code in meant or each.key in meant)]
    refuse([each for each in every if each not in odd])
    return odd


def refuse(found: Iterable[Finding]) -> None:
    """Raise all of them, if any."""
    if every := list(found):
        raise together(every)


def together(found: Iterable[Finding]) -> ValidationError:
    """All of them in one error, at their fields."""
    errors: dict[str, list[ValidationError]] = {}
    for each in found:
        errors.setdefault(each.field, []).append(each.error())
    return ValidationError(errors)


def of_save(row: models.Model) -> Iterator[Finding]:
    """What a plain ``save`` must not do, whoever calls it."""
    for asked, fields in _save_rules.get(row._meta.label, ()):
        columns = [column.attname for column in row._meta.concrete_fields if column.name in fields]
        before = type(row)._base_manager.filter(pk=row.pk).values_list(*columns).first() if row.pk else None
        if before != tuple(getattr(row, column) for column in columns):
            yield from asked(row)


class Ruled(models.Model):
    """A row that has a rule. Every door (forms, imports, commands, services) passes ``full_clean``; code that saves
    without it is held by ``save`` to the one spelling and to the save rules, and to nothing else, so only tests and
    workers may."""

    class Meta:
        abstract = True

    def normalize(self) -> None:
        """Spell in one way what can be spelled in several, and fill in what follows from the rest. What is wrong
        stays as it is, for the rule to refuse. Doing it twice is doing it once."""

    def full_clean(self, *args: Any, **kwargs: Any) -> None:
        self.normalize()
        super().full_clean(*args, **kwargs)

    def clean(self) -> None:
        judge(self)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Raise ``ValidationError`` where a save rule says no."""
        refuse(of_save(self))
        super().save(*args, **kwargs)


class Confirmable(Ruled):
    """A row that may be odd, where somebody means it. ``confirmed`` keeps what was said to be meant."""

    confirmed = models.JSONField(default=list, blank=True, editable=False)

    meant: Collection[str] = ()  # codes or keys of oddities, for as long as this object lives

    class Meta:
        abstract = True

    def full_clean(self, *args: Any, meant: Collection[str] = (), **kwargs: Any) -> None:
        """``meant``: codes of what is odd and meant. Raise ``ValidationError``."""
        self.meant = {*self.meant, *meant}
        super().full_clean(*args, **kwargs)

    def clean(self) -> None:
        odd = judge(self, {*self.meant, *self.confirmed})
        self.confirmed = sorted({each.key for each in odd})

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.meant and kwargs.get("update_fields") is not None:
            kwargs["update_fields"] = {*kwargs["update_fields"], "confirmed"}
        super().save(*args, **kwargs)
