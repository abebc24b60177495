"""Which second factors a server cannot ask for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from django.core.exceptions import ValidationError

from servers.models import Server, ServerFactor
from users.factors.base import Factor
from users.factors.cutting import inseparable
from users.factors.providers import NotConfigured, ProviderConfig, config_for
from users.factors.registry import FACTORS, load
from users.models import Provider

from . import registry
from .registry import Mistake, rule


@rule(ServerFactor)
def check(row: ServerFactor) -> Iterator[Mistake]:
    if row.kind not in FACTORS:
        yield Mistake("kind", f"The factor {row.kind} is not installed here: nobody could pass it.")
        return
    factor = load(row.kind)
    if row.if_unavailable == "skip" and not factor.can_be_unavailable:
        yield Mistake("if_unavailable", f"{factor.label} needs no provider that could be down.")
    if missing := factor.missing():
        yield Mistake("kind", f"{factor.label} is not installed here. {missing}")
    yield from _provider(row, factor)
    yield from _settings(row, factor)
    # The object and not its id: in a form with its server, that may have none yet.
    server: Server | None = getattr(row, "server", None)
    if server is not None and server.pk:
        others = server.factors.exclude(pk=row.pk).exclude(pk__in=getattr(row, "decided_with", ()))
        yield from beside(row, others)


def _provider(row: ServerFactor, factor: Factor) -> Iterator[Mistake]:
    if factor.provider_form is None:
        if row.provider is not None:
            yield Mistake("provider", f"{factor.label} asks no provider.")
    elif row.provider is None:
        number = Provider.objects.filter(kind=row.kind).count()
        if not number:
            yield Mistake("provider", f"There is no provider for {factor.label} yet: add one first.")
        elif number > 1:
            yield Mistake("provider", f"There are {number} providers for {factor.label}: say which one to ask.")
    elif row.provider.kind != row.kind:
        yield Mistake("provider", f"{row.provider} is no provider for {factor.label}.")


def _settings(row: ServerFactor, factor: Factor) -> Iterator[Mistake]:
    if not isinstance(row.settings, dict):
        yield Mistake("settings", "Settings are names with values.")
        return
    fields = factor.settings_form().fields
    if unknown := sorted(row.settings.keys() - fields.keys()):
        yield Mistake("settings", f"{factor.label} has no setting {', '.join(unknown)}.")
        return
    # What is left out has its default.
    form = factor.settings_form({name: field.initial for name, field in fields.items()} | row.settings)
    if not form.is_valid():
        names = [str(form[name].label) for name in form.errors if name in form.fields]
        yield Mistake("settings", f"{factor.label} cannot have these settings: {', '.join(names)}.")


def beside(row: ServerFactor, others: Iterable[ServerFactor]) -> Iterator[Mistake]:
    """Whether ``row`` goes together with other factors of its server. Also where both are optional: somebody who has
    both would be let in no more."""
    others = list(others)
    if any(other.kind == row.kind for other in others):
        yield Mistake("kind", "This server asks for this factor already.")
        return
    rows = [each for each in (row, *others) if each.kind in FACTORS]
    if alike := inseparable((load(each.kind), _asked_provider(each)) for each in rows):
        names = " and ".join(factor.label for factor in alike)
        message = f"Clients join what is typed for {names} in one, and nobody could tell them apart."
        yield Mistake("mode", f"{message} Ask for one of them.")


def _asked_provider(row: ServerFactor) -> ProviderConfig | None:
    """None where it has none, or nothing says which: nobody gets in then."""
    form = load(row.kind).provider_form
    try:
        return config_for(row.kind, form, row.provider_id) if form else None
    except NotConfigured:
        return None


def together(rows: Sequence[ServerFactor]) -> Iterator[tuple[ServerFactor, ValidationError]]:
    """The rows of one form that do not go together, each with the reason."""
    for number, row in enumerate(rows):
        if found := list(beside(row, rows[:number])):
            yield row, registry.together(found)
