"""What there is to say of an application in Duo's admin panel (of the kind Auth API)."""

from __future__ import annotations

from typing import ClassVar

from django import forms

from users.factors.asking import Authority, WebAddress
from users.factors.providers import ProviderConfig, ProviderForm

from .api import Application


class DuoApplication(ProviderForm):
    address = WebAddress(
        label="API hostname", help_text="Of the application's page in Duo: https://api-XXXXXXXX.duosecurity.com"
    )
    integration_key = forms.RegexField(r"\A[A-Za-z0-9]{1,64}\Z", label="Client ID (integration key)")
    secret_key = forms.CharField(label="Client secret (secret key)")
    username = forms.ChoiceField(
        label="Users are known there by",
        choices=[("email", "their e-mail address"), ("name", "their name here")],
        initial="email",
    )
    ca = Authority()

    secret_fields: ClassVar[frozenset[str]] = frozenset({"secret_key"})


class DuoPushSettings(forms.Form):
    by = forms.ChoiceField(
        label="Duo asks by",
        choices=[
            ("push", "a request in Duo Mobile"),
            ("phone", "a phone call"),
            ("either", "a request in Duo Mobile, or a call to who has no Duo Mobile"),
        ],
        initial="push",
    )


def application_of(provider: ProviderConfig) -> Application:
    settings = provider.settings
    return Application(settings["address"], settings["integration_key"], provider.secrets["secret_key"], settings["ca"])
