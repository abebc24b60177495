"""Signing in to the admin: the same budget of wrong attempts that clients' second factors have; and, for whom somebody
else gave their password, choosing one of their own."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from unfold.forms import AuthenticationForm

from core import rate_limits
from core.client_address import client_address
from core.redis_store import RedisUnavailable
from core.second_factor import audit, sessions
from users.services import must_choose_password

from .leading_on import wanted


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


WHY = (
    "Somebody else knows the password that you signed in with: it was given to you. Choose one of your own now; after "
    "that you get to where you wanted to go."
)


def change_password(request: HttpRequest) -> HttpResponse:
    """Django's page. Who had to come here is told why, and led on afterwards."""
    # ``admin_view`` lets nobody else come here.
    must = request.user.is_authenticated and must_choose_password(request.user)
    words = {"title": "Choose a password of your own", "why": WHY} if must else None
    response = admin.site.password_change(request, words)
    if response.status_code != 302 or not isinstance(request.user, User):
        return response
    sessions.end_all(request.user, but=request.session.session_key)
    audit.note(request.user, "Chose a new password; their other sessions ended.")
    if not must:
        return response
    messages.success(request, "You have a password of your own now.")
    return redirect(wanted(request))
