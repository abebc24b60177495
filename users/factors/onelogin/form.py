"""What there is to say of an account at OneLogin."""

from __future__ import annotations

from typing import ClassVar

from django import forms

from users.factors.asking import Authority, WebAddress
from users.factors.providers import ProviderConfig, ProviderForm

from .api import Account


class OneLoginAccount(ProviderForm):
    address = WebAddress(label="Address", help_text="Of your account: https://NAME.onelogin.com")
    client_id = forms.RegexField(
        r"\A[A-Za-z0-9]{1,255}\Z",
        label="Client ID",
        help_text="Of an API credential with the scope Manage All: Developers, API Credentials.",
    )
    client_secret = forms.CharField(label="Client secret", max_length=255)
    username = forms.ChoiceField(
        label="Users are known there by",
        choices=[("email", "their e-mail address"), ("name", "their name here, as the username there")],
        initial="email",
    )
    ca = Authority()

    secret_fields: ClassVar[frozenset[str]] = frozenset({"client_secret"})


def account_of(provider: ProviderConfig) -> Account:
    settings = provider.settings
    return Account(settings["address"], settings["client_id"], provider.secrets["client_secret"], settings["ca"])
