"""What the pages of the second factor share."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse

from core import clock
from core.client_address import client_address
from core.second_factor import audit, recovery, sessions
from core.second_factor.proof import is_shown, mark_shown
from vpnproject.leading_on import wanted


def administrator(request: HttpRequest) -> User:
    """Who is signed in; the admin's views are open to nobody else."""
    assert isinstance(request.user, User)  # noqa: S101 (admin_view looked)
    return request.user


def page(request: HttpRequest, template: str, title: str, **context: Any) -> HttpResponse:
    """A page that no cache keeps: it may show a secret."""
    found = {**admin.site.each_context(request), "title": title, **context}
    response = TemplateResponse(request, f"second_factor/{template}.html", found)
    response["Cache-Control"] = "no-store"
    return response


def passed(request: HttpRequest, how: str) -> None:
    """This session has shown a second factor: note it, and lead on in a session with another key."""
    if not is_shown(request):
        audit.note(administrator(request), f"Signed in from {client_address(request)} with {how}.")
    mark_shown(request)


def set_up(request: HttpRequest, how: str) -> HttpResponse:
    """A factor was set up: other sessions end, this one has shown it; who has no recovery codes gets some."""
    user = administrator(request)
    sessions.end_all(user, but=request.session.session_key)
    passed(request, how)
    if recovery.left(user):
        messages.success(request, "Set up.")
        return redirect(wanted(request))
    return show_codes(request, recovery.renew(user, clock.now()))


def show_codes(request: HttpRequest, fresh: list[str]) -> HttpResponse:
    return page(request, "recovery_codes", "Recovery codes", codes=fresh, next=wanted(request))
