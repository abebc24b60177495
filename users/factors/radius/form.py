"""What there is to say of a RADIUS service."""

from __future__ import annotations

from typing import ClassVar

from django import forms

from users.factors.providers import ProviderForm

from .servers import parse_servers

# Seconds. Clients that exist wait 40 for a connect, in which a host must confirm it too.
LONGEST_PATIENCE = 30


class RadiusForm(ProviderForm):
    servers = forms.CharField(
        label="Servers",
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="A line each, in the order in which they are asked: HOST or HOST:PORT (1812). Addresses are better "
        "than names, which are looked up at each attempt.",
    )
    shared_secret = forms.CharField(
        label="Shared secret",
        widget=forms.PasswordInput,
        strip=False,
        min_length=8,
        max_length=128,
        help_text="The same for all of them. At least eight characters; take 32 random ones, since who can listen on "
        "the way may guess at it.",
    )
    name_from = forms.ChoiceField(
        label="Who is asked about",
        choices=[("name", "the user's name"), ("email", "the user's e-mail address")],
        initial="name",
        help_text="What is sent as User-Name.",
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
    timeout = forms.IntegerField(
        label="Wait for a server",
        min_value=1,
        max_value=LONGEST_PATIENCE,
        initial=3,
        help_text="Seconds, until it is asked again. More where it waits for somebody's phone.",
    )
    tries = forms.IntegerField(
        label="Ask a server", min_value=1, max_value=5, initial=2, help_text="Times, before the next one is asked."
    )
    patience = forms.IntegerField(
        label="Wait for all of them",
        min_value=1,
        max_value=LONGEST_PATIENCE,
        initial=9,
        help_text="Seconds in all. After ten, wgpeer asks the next host, which waits for the same answer.",
    )
    secret_fields: ClassVar[frozenset[str]] = frozenset({"shared_secret"})

    def clean_servers(self) -> str:
        try:
            return "\n".join(str(server) for server in parse_servers(self.cleaned_data["servers"]))
        except ValueError as error:
            raise forms.ValidationError(str(error)) from None

    def clean(self) -> None:
        timeout, patience = self.cleaned_data.get("timeout"), self.cleaned_data.get("patience")
        if timeout and patience and patience < timeout:
            self.add_error("patience", "This is less than the time to wait for one server.")
