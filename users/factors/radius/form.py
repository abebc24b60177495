"""What there is to say of a RADIUS service."""

from __future__ import annotations

from typing import ClassVar

from django import forms

from users.factors.asked_servers import ServersForm

from .servers import parse_servers


class RadiusForm(ServersForm):
    help_texts: ClassVar[dict[str, str]] = {
        "servers": "A line each, in the order in which they are asked: HOST or HOST:PORT (1812). Addresses are better "
        "than names, which are looked up at each attempt.",
        "name_from": "What is sent as User-Name.",
        "timeout": "Seconds, until it is asked again. More where it waits for somebody's phone.",
    }
    field_order = [
        "servers",
        "shared_secret",
        "name_from",
        "nas_identifier",
        "code",
        "code_digits",
        "timeout",
        "tries",
        "patience",
    ]
    shared_secret = forms.CharField(
        label="Shared secret",
        widget=forms.PasswordInput,
        strip=False,
        min_length=8,
        max_length=128,
        help_text="The same for all of them. At least eight characters; take 32 random ones, since who can listen on "
        "the way may guess at it.",
    )
    nas_identifier = forms.CharField(
        label="NAS-Identifier", max_length=64, initial="vpn", help_text="By what the servers know us."
    )
    code = forms.ChoiceField(
        label="One-time codes",
        choices=[
            ("none", "none: the password is sent as it is typed"),
            ("joined", "after the password, sent in one with it"),
            ("challenge", "after the password, sent when the server asks for it by a challenge"),
        ],
        initial="none",
        help_text="With a code, clients ask their users for it beside the password.",
    )
    code_digits = forms.IntegerField(label="Digits of a code", min_value=4, max_value=10, initial=6)
    tries = forms.IntegerField(
        label="Ask a server", min_value=1, max_value=5, initial=2, help_text="Times, before the next one is asked."
    )
    secret_fields: ClassVar[frozenset[str]] = frozenset({"shared_secret"})

    def clean_servers(self) -> str:
        try:
            return "\n".join(str(server) for server in parse_servers(self.cleaned_data["servers"]))
        except ValueError as error:
            raise forms.ValidationError(str(error)) from None
