"""Providers: what a factor is told about the service of somebody else that it asks.

A factor says by a form of its own what there is to say (``Factor.provider_form``). What administrators fill in is
stored as a ``Provider``; here it is checked, by the same form, when it is stored and again when it is read: what an
older release stored and this one cannot use refuses, and is not guessed at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError

from core.crypto import Secret
from users.models import Provider


class NotConfigured(Exception):
    """Nobody can say which provider to ask, or what is stored of it cannot be used. The argument is the kind."""


class ProviderForm(forms.Form):
    """What there is to say of a provider. ``secret_fields``: those that are encrypted at rest, and never shown again.
    All values are such as JSON has; no field is called as a column of ``Provider`` is."""

    secret_fields: ClassVar[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """A provider as its factor reads it: every field of the form has its value in one of the two."""

    public_id: str
    kind: str
    name: str
    settings: Mapping[str, Any]
    secrets: Mapping[str, str] = field(repr=False)


def stored_secrets(provider: Provider) -> dict[str, str]:
    """Raise ``CannotDecrypt``."""
    return dict(json.loads(provider.secrets.reveal())) if provider.secrets.stored else {}


def put(provider: Provider, form: ProviderForm) -> None:
    """Write what a valid ``form`` says onto ``provider``, unsaved."""
    values = {name: form.cleaned_data[name] for name in form.fields}
    provider.settings = {name: value for name, value in values.items() if name not in form.secret_fields}
    provider.secrets = Secret.of(json.dumps({name: values[name] for name in sorted(form.secret_fields)}))


def form_for(provider: Provider, form_class: type[ProviderForm]) -> ProviderForm:
    """What is stored, as if it had just been filled in; what is not has its initial value. Raise ``CannotDecrypt``."""
    initial = {name: each.initial for name, each in form_class.base_fields.items()}
    return form_class(initial | provider.settings | stored_secrets(provider))


def check(provider: Provider, form_class: type[ProviderForm] | None) -> None:
    """Raise ``ValidationError`` where the factor of that kind (``form_class``) cannot use what is stored."""
    if form_class is None:
        raise ValidationError(f"No factor that is installed here asks a provider of the kind {provider.kind}.")
    if unknown := sorted((provider.settings.keys() | stored_secrets(provider).keys()) - form_class.base_fields.keys()):
        raise ValidationError(f"A provider of this kind has no setting {', '.join(unknown)}.")
    form = form_for(provider, form_class)
    if not form.is_valid():
        labels = {name: f"{form[name].label}: " for name in form.fields}
        raise ValidationError(
            [f"{labels.get(name, '')}{said}" for name, errors in form.errors.items() for said in errors]
        )


def config_of(provider: Provider, form_class: type[ProviderForm]) -> ProviderConfig:
    """Raise ``NotConfigured``, ``CannotDecrypt``."""
    form = form_for(provider, form_class)
    if not form.is_valid():
        raise NotConfigured(provider.kind)
    secrets = {name: form.cleaned_data[name] for name in form.secret_fields}
    settings = {name: form.cleaned_data[name] for name in form.fields if name not in secrets}
    return ProviderConfig(provider.public_id, provider.kind, provider.name, settings, secrets)


def config_for(kind: str, form_class: type[ProviderForm], said: int | None) -> ProviderConfig:
    """The provider that is said (its primary key), else the only one of its kind. Raise ``NotConfigured`` where there
    is none, or several that nobody chose between, and ``CannotDecrypt``."""
    of_kind = Provider.objects.filter(kind=kind)
    found = list((of_kind if said is None else of_kind.filter(pk=said))[:2])
    if len(found) != 1:
        raise NotConfigured(kind)
    return config_of(found[0], form_class)
