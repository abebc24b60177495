"""A network, or several, as a field: typed in any spelling, kept in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.db import models

from .networks import spelled
from .validators import listed

# The longest spelling has 49 characters (an IPv6 address that ends as IPv4 does, and a length); some room for spaces.
LONGEST = 64

if TYPE_CHECKING:

    class _CharField(models.CharField[str, str]): ...

else:
    _CharField = models.CharField


class NetworkFormField(forms.CharField):
    def to_python(self, value: Any) -> str | None:
        text = super().to_python(value)
        return spelled(text) if text else text


class NetworkField(_CharField):
    """A network as text. The row's rule says what is none."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **({"max_length": LONGEST} | kwargs))

    def formfield(self, *args: Any, **kwargs: Any) -> Any:
        return super().formfield(*args, **({"form_class": NetworkFormField} | kwargs))


def all_spelled(text: str) -> str:
    """Networks that are separated by commas, each in its one spelling."""
    return ", ".join(spelled(item) for item in listed(text))


class NetworksFormField(forms.CharField):
    def to_python(self, value: Any) -> str | None:
        text = super().to_python(value)
        return all_spelled(text) if text else text


class NetworksField(_CharField):
    """Networks as text, separated by commas. What is none a validator says."""

    def formfield(self, *args: Any, **kwargs: Any) -> Any:
        return super().formfield(*args, **({"form_class": NetworksFormField} | kwargs))
