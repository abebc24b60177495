"""What there is to say of an organization at Okta."""

from __future__ import annotations

from typing import ClassVar

from django import forms

from users.factors.asking import Authority, WebAddress
from users.factors.providers import ProviderConfig, ProviderForm

from .api import Organization


class OktaOrganization(ProviderForm):
    address = WebAddress(label="Address", help_text="Of your organization: https://ORGANIZATION.okta.com")
    token = forms.CharField(
        label="API token", help_text="Of an administrator who may see users and their factors: Security, API, Tokens."
    )
    username = forms.ChoiceField(
        label="Users sign in there with",
        choices=[("email", "their e-mail address"), ("name", "their name here")],
        initial="email",
    )
    ca = Authority()

    secret_fields: ClassVar[frozenset[str]] = frozenset({"token"})


def organization_of(provider: ProviderConfig, client: str = "") -> Organization:
    """``client``: the address of the user who is judged."""
    return Organization(provider.settings["address"], provider.secrets["token"], provider.settings["ca"], client)
