"""Showing a second factor at sign-in and when it is asked for again; setting up an authenticator app."""

from __future__ import annotations

import segno
from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from core import clock, totp
from core.admin.asking_again import ask_again
from core.client_address import client_address
from core.crypto import CannotDecrypt, Secret
from core.models import AdminAuthenticator
from core.second_factor import authenticator as apps
from core.second_factor import codes, passkeys
from core.second_factor.proof import has_factor, is_fresh, is_shown
from vpnproject.leading_on import by_way_of, wanted

from .common import administrator, page, passed, set_up

# In a session: the secret, encrypted, of an app that is being set up.
PENDING = "pending_authenticator"


def verify(request: HttpRequest) -> HttpResponse:
    """After the password."""
    if is_shown(request) or not has_factor(administrator(request)):
        return redirect(wanted(request))
    return _ask(request, "Second factor", "Your password was right. Now your second factor.")


def confirm(request: HttpRequest) -> HttpResponse:
    """Before what is sensitive."""
    if not has_factor(administrator(request)):
        return redirect(wanted(request))
    return _ask(request, "Is it still you?", "It is more than 15 minutes since you showed your second factor.")


def _ask(request: HttpRequest, title: str, words: str) -> HttpResponse:
    user, error = administrator(request), ""
    if request.method == "POST":
        address = client_address(request) or ""
        try:
            kind = codes.offer(user, request.POST.get("code", "")[:100], address, clock.now())
        except codes.CodeRefused as refused:
            error = str(refused)
        else:
            passed(request, f"an {kind}" if kind == codes.AUTHENTICATOR else f"a {kind}")
            return redirect(wanted(request))
    context = {
        "words": words,
        "error": error,
        "has_app": AdminAuthenticator.objects.filter(administrator=user).exists(),
        "passkeys": passkeys.usable(user, passkeys.site_of(request)),
        "next": wanted(request),
    }
    return page(request, "ask", title, **context)


@require_GET
def enrol(request: HttpRequest) -> HttpResponse:
    """The first second factor."""
    if has_factor(administrator(request)):
        return redirect(wanted(request))
    title = "Set up a second factor"
    return page(request, "enrol", title, next=wanted(request), site=passkeys.site_of(request), first=True)


@require_POST
def authenticator(request: HttpRequest) -> HttpResponse:
    """Show a new secret as a QR code, once; then take the app's first code."""
    user = administrator(request)
    if not is_fresh(request):
        return ask_again(request, reverse("second_factor:account"))
    if "code" not in request.POST:
        return _show_secret(request, user)
    try:
        secret = Secret(request.session[PENDING])
        apps.set_up(user, secret, request.POST["code"][:100], clock.now(), first=not is_shown(request))
    except (KeyError, CannotDecrypt):
        messages.error(request, "That was begun too long ago. Begin again.")
        return redirect(by_way_of(reverse("second_factor:enrol"), wanted(request)))
    except apps.NotSetUp as error:
        return page(request, "set_up", "Set up an authenticator app", error=str(error), next=wanted(request))
    del request.session[PENDING]
    return set_up(request, "an authenticator")


def _show_secret(request: HttpRequest, user: User) -> HttpResponse:
    secret = totp.new_secret()
    request.session[PENDING] = secret.stored
    qr = segno.make(apps.uri(user, secret, request.get_host()), error="m").svg_data_uri(scale=5, border=2)
    shown = {"qr": qr, "secret": secret.reveal(), "next": wanted(request)}
    return page(request, "set_up", "Set up an authenticator app", **shown)
