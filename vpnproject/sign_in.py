"""Signing in to the admin: the same budget of wrong attempts that clients' second factors have."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from unfold.forms import AuthenticationForm

from core import rate_limits
from core.redis_store import RedisUnavailable
from wgpeers.views import client_address


class SignInForm(AuthenticationForm):  # type: ignore[misc]  # unfold has no types
    """Counts each attempt before the password is looked at, and gives it back when it was right.

    By name and address together: a stranger's guesses must not lock the administrator out everywhere.
    """

    def clean(self) -> dict[str, Any]:
        address = client_address(self.request) or ""
        name = str(self.cleaned_data.get("username", "")).lower()
        try:
            reserved = rate_limits.reserve(f"admin:{rate_limits.network_of(address)}:{name}", address)
        except rate_limits.TooManyAttempts as error:
            minutes = -(-error.retry_after // 60)
            raise ValidationError(f"Too many attempts. Try again in {minutes} minutes.", code="limited") from None
        except RedisUnavailable:
            raise ValidationError("Attempts cannot be counted, because Redis is down.", code="limited") from None
        cleaned: dict[str, Any] = super().clean()
        reserved.give_back()
        return cleaned
