"""What there is to say of a validation server."""

from __future__ import annotations

from typing import ClassVar

from django import forms
from django.core.exceptions import ValidationError

from users.factors.asking import Authority, WebAddresses
from users.factors.providers import ProviderForm

from .validation import decoded_key

YUBICO = "https://api.yubico.com/wsapi/2.0/verify"


class YubiKeyService(ProviderForm):
    servers = WebAddresses(
        label="Validation servers",
        initial=YUBICO,
        help_text="One a line: Yubico's, or your own. Each is asked where the one before it does not answer.",
    )
    client_id = forms.RegexField(
        r"\A[0-9]{1,10}\Z",
        label="Client ID",
        help_text="Of your key at upgrade.yubico.com/getapikey, or of your own server.",
    )
    secret_key = forms.CharField(label="Secret key", help_text="It comes with the client ID.")
    ca = Authority()

    secret_fields: ClassVar[frozenset[str]] = frozenset({"secret_key"})

    def clean_secret_key(self) -> str:
        text = str(self.cleaned_data["secret_key"])
        try:
            decoded_key(text)
        except ValueError as error:
            raise ValidationError(str(error)) from None
        return text
