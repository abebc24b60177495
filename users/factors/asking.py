"""What the factors share that ask a service of somebody else by HTTP: the fields of their forms."""

from __future__ import annotations

import ssl
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from core import trusted
from core.http import host_of


class WebAddress(forms.CharField):
    """Where a service is. Its host is one that an administrator named, so it may be an address inside."""

    def clean(self, value: Any) -> str:
        text = str(super().clean(value)).rstrip("/")
        if text and not host_of(text):
            raise ValidationError("Write the address with https:// in front, without a name or password in it.")
        return text


class WebAddresses(forms.CharField):
    """Several, one a line; as text, such as JSON has."""

    widget = forms.Textarea

    def clean(self, value: Any) -> str:
        one = WebAddress()
        return "\n".join(one.clean(line) for line in str(super().clean(value)).split())


class Authority(forms.CharField):
    """Certificates that a service's own is verified with, in the place of the system's."""

    widget = forms.Textarea

    def __init__(self) -> None:
        super().__init__(
            label="Certificate authority",
            required=False,
            initial="",
            help_text="Only for a server of your own: the certificate, in PEM, that its certificate is verified with.",
        )

    def clean(self, value: Any) -> str:
        text = str(super().clean(value))
        if not text:
            return ""  # to read the system's takes longer than all else of a connect
        try:
            trusted.context(text)
        except (ssl.SSLError, ValueError):
            raise ValidationError("That is no certificate in PEM.") from None
        return text
