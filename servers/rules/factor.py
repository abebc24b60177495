"""Which second factors a server cannot ask for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from django.core.exceptions import ValidationError

from servers.models import Server, ServerFactor
from users.factors.base import Factor
from users.factors.cutting import inseparable
from users.factors.registry import FACTORS, load

from .registry import rule


@rule(ServerFactor)
def check(row: ServerFactor) -> None:
    """Raise ``ValidationError`` with a message at the field that must change."""
    if row.kind not in FACTORS:
        raise ValidationError({"kind": f"The factor {row.kind} is not installed here: nobody could pass it."})
    factor = load(row.kind)
    if row.if_unavailable == "skip" and not factor.can_be_unavailable:
        raise ValidationError({"if_unavailable": f"{factor.label} needs no provider that could be down."})
    _settings(row, factor)
    # The object and not its id: in a form with its server, that may have none yet.
    server: Server | None = getattr(row, "server", None)
    if server is not None and server.pk:
        others = server.factors.exclude(pk=row.pk).exclude(pk__in=getattr(row, "decided_with", ()))
        beside(row, others)


def _settings(row: ServerFactor, factor: Factor) -> None:
    if not isinstance(row.settings, dict):
        raise ValidationError({"settings": "Settings are names with values."})
    fields = factor.settings_form().fields
    if unknown := sorted(row.settings.keys() - fields.keys()):
        raise ValidationError({"settings": f"{factor.label} has no setting {', '.join(unknown)}."})
    # What is left out has its default.
    form = factor.settings_form({name: field.initial for name, field in fields.items()} | row.settings)
    if not form.is_valid():
        names = [str(form[name].label) for name in form.errors if name in form.fields]
        raise ValidationError({"settings": f"{factor.label} cannot have these settings: {', '.join(names)}."})


def beside(row: ServerFactor, others: Iterable[ServerFactor]) -> None:
    """Whether ``row`` goes together with other factors of its server. Also where both are optional: somebody who has
    both would be let in no more."""
    others = list(others)
    if any(other.kind == row.kind for other in others):
        raise ValidationError({"kind": "This server asks for this factor already."})
    kinds = [kind for kind in (row.kind, *(other.kind for other in others)) if kind in FACTORS]
    if texts := inseparable(load(kind) for kind in kinds):
        names = " and ".join(factor.label for factor in texts)
        message = f"{names} are both text of any form, and clients join them in one: nobody could tell them apart."
        raise ValidationError({"mode": f"{message} Ask for one of them."})


def together(rows: Sequence[ServerFactor]) -> Iterator[tuple[ServerFactor, ValidationError]]:
    """The rows of one form that do not go together, each with the reason."""
    for number, row in enumerate(rows):
        try:
            beside(row, rows[:number])
        except ValidationError as error:
            yield row, error
