"""An administrator's own page: their second factors, and where they are signed in."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from core import clock
from core.admin.asking_again import ask_again
from core.admin.sessions import shown
from core.models import AdminAuthenticator, Passkey
from core.second_factor import audit, changes, passkeys, recovery, sessions
from core.second_factor.proof import has_factor, is_fresh
from core.session_store import ABOUT

from .common import administrator, page, show_codes

LAST_ONE = "Not removed: it is your only second factor. Set up another one first."


def home() -> str:
    return reverse("second_factor:account")


@require_GET
def show(request: HttpRequest) -> HttpResponse:
    user = administrator(request)
    context = {
        "app": AdminAuthenticator.objects.filter(administrator=user).first(),
        "passkeys": Passkey.objects.filter(administrator=user).order_by("created"),
        "site": passkeys.site_of(request),
        "codes_left": recovery.left(user),
        "has_factor": has_factor(user),
        "sessions": [shown(row, request.session.session_key) for row in sessions.of(user)],
    }
    return page(request, "account", "Your second factor and sessions", **context)


@require_POST
def remove_authenticator(request: HttpRequest) -> HttpResponse:
    if not is_fresh(request):
        return ask_again(request, home())
    try:
        changes.remove_authenticator(administrator(request), request.session.session_key, may_be_last=may_be_last())
    except changes.LastOne:
        messages.error(request, LAST_ONE)
    else:
        messages.success(request, "Removed the authenticator app. Your other sessions ended.")
    return redirect(home())


@require_POST
def recovery_codes(request: HttpRequest) -> HttpResponse:
    if not is_fresh(request):
        return ask_again(request, home())
    user = administrator(request)
    if not has_factor(user):
        messages.error(request, "Recovery codes stand in for a second factor: set one up first.")
        return redirect(home())
    return show_codes(request, recovery.renew(user, clock.now()))


@require_POST
def end_sessions(request: HttpRequest) -> HttpResponse:
    """``id``: one of one's own; without it, all others."""
    user, public_id = administrator(request), request.POST.get("id", "")
    if not public_id:
        ended = sessions.end_all(user, but=request.session.session_key)
        audit.note(user, f"Ended {ended} other sessions of theirs.")
        messages.success(request, f"Ended: {ended}.")
    elif public_id == request.session.get(ABOUT, {}).get("id"):
        logout(request)
        return redirect(reverse("admin:login"))
    elif sessions.end(user, public_id):
        audit.note(user, "Ended a session of theirs.")
        messages.success(request, "Ended.")
    else:
        messages.info(request, "It had ended already.")
    return redirect(home())


def may_be_last() -> bool:
    """Whether the last factor may be removed."""
    return settings.ADMIN_SECOND_FACTOR != "required"
