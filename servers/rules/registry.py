"""The rules of each model: what cannot work is refused here, in words, whether it comes from a form, an import, a
command or code that calls ``full_clean``.

Models know this registry and not the rules; the rules know the models, and are loaded when the app is ready. So a
model's rule may look at any other model. A rule changes nothing of the row: ``normalize()`` of the model has spelled
it in its one way before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django.core.exceptions import ImproperlyConfigured
from django.db import models

M = TypeVar("M", bound=models.Model)
_rules: dict[str, Callable[..., None]] = {}


def rule(model: type[M]) -> Callable[[Callable[[M], None]], Callable[[M], None]]:
    """Make a function the rule of ``model``. It raises ``ValidationError`` with a message at the field that must
    change."""

    def register(function: Callable[[M], None]) -> Callable[[M], None]:
        if model._meta.label in _rules:
            raise ImproperlyConfigured(f"{model._meta.label} has two rules.")
        _rules[model._meta.label] = function
        return function

    return register


def judge(row: models.Model) -> None:
    """Raise ``ValidationError`` where the row cannot work. A model whose rule was never loaded raises
    ``ImproperlyConfigured``: nothing passes unjudged."""
    found = _rules.get(row._meta.label)
    if found is None:
        raise ImproperlyConfigured(f"{row._meta.label} has no rule.")
    found(row)


class Ruled(models.Model):
    """A row that has a rule. Every door (forms, imports, commands, services) passes ``full_clean``; code that saves
    without it is held to the one spelling by ``save`` and to nothing else, so only tests and workers may."""

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
