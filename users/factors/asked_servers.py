"""What RADIUS and LDAP have in common: an administrator names servers, which are asked one after the other about a
name and the password that was typed with it."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms

from users.models import VpnUser

from .providers import ProviderConfig, ProviderForm

# Seconds. Clients that exist wait 40 for a connect, in which a host must confirm it too.
LONGEST_PATIENCE = 30


class ServersForm(ProviderForm):
    servers = forms.CharField(label="Servers", widget=forms.Textarea(attrs={"rows": 3}))
    name_from = forms.ChoiceField(
        label="Who is asked about",
        choices=[("name", "the user's name"), ("email", "the user's e-mail address")],
        initial="name",
    )
    timeout = forms.IntegerField(
        label="Wait for a server", min_value=1, max_value=LONGEST_PATIENCE, initial=3, help_text="Seconds."
    )
    patience = forms.IntegerField(
        label="Wait for all of them",
        min_value=1,
        max_value=LONGEST_PATIENCE,
        initial=9,
        help_text="Seconds in all. After ten, wgpeer asks the next host, which waits for the same answer.",
    )
    help_texts: ClassVar[dict[str, str]] = {}  # of the fields above, by whoever asks

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, text in self.help_texts.items():
            self.fields[name].help_text = text

    def clean(self) -> None:
        timeout, patience = self.cleaned_data.get("timeout"), self.cleaned_data.get("patience")
        if timeout and patience and patience < timeout:
            self.add_error("patience", "This is less than the time to wait for one server.")


def name_of(user: VpnUser, provider: ProviderConfig) -> str:
    """By which the user is known there; empty: they have none."""
    return user.email if provider.settings["name_from"] == "email" else user.name
