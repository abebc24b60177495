"""The page of a request on a phone: one button sends it, and then the page shows what to choose there and looks again
every few seconds, without a script and without holding a thread."""

from __future__ import annotations

import logging

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from core import clock
from core.http import NoAnswer
from users.factors import providers, pushes
from users.factors.providers import ProviderConfig
from users.factors.registry import FACTORS, load
from users.factors.remote import Malformed, RefusesUs
from users.models import SignIn

from . import phone, sign_ins
from .outcomes import NotSignedIn
from .pages import browser_of, held_to_policy, known_browser, remember_browser, say
from .phone import OnPhone, PhoneFactor

log = logging.getLogger(__name__)
TEMPLATE = "users/phone.html"


@held_to_policy("GET", "POST")
def page(request: HttpRequest, page: str) -> HttpResponse:
    """To GET it sends nothing; the button on it (POST) does."""
    sign_in = sign_ins.by_page(page, clock.now())
    found = _provider_of(sign_in) if sign_in else None
    if sign_in is None or found is None:
        return say(request, "gone", status=404)
    if sign_in.outcome:
        return _ended(request, sign_in, sign_in.outcome)
    on_phone = phone.open_for(sign_in, known_browser(request))
    if on_phone is None:
        return _send(request, sign_in, *found) if request.method == "POST" else _say(request, "ask", sign_in)
    return _look(request, sign_in, *found, on_phone)


def _send(request: HttpRequest, sign_in: SignIn, factor: PhoneFactor, config: ProviderConfig) -> HttpResponse:
    browser = browser_of(request)
    try:
        pushes.begin(sign_in.user, sign_in.attempt_hash)
    except pushes.NotSent:
        return _say(request, "busy", sign_in, status=429)
    try:
        phone.keep(sign_in, browser, factor.begin(config, sign_in.user, sign_in.address or ""))
    except NotSignedIn as error:
        return _over(request, sign_in, error.code)
    except (NoAnswer, RefusesUs, Malformed) as error:
        log.warning("no request can be sent to a phone: %s %s", type(error).__name__, error)
        pushes.end(sign_in.user, sign_in.attempt_hash)
        return _say(request, "unavailable", sign_in, status=503)
    return remember_browser(redirect(request.path), browser)


def _look(
    request: HttpRequest, sign_in: SignIn, factor: PhoneFactor, config: ProviderConfig, on_phone: OnPhone
) -> HttpResponse:
    try:
        if phone.may_look(sign_in) and factor.look(config, on_phone):
            return _over(request, sign_in, sign_ins.OK)
    except NotSignedIn as error:
        return _over(request, sign_in, error.code)
    except (NoAnswer, RefusesUs, Malformed) as error:
        # The next look may find it.
        log.warning("a request on a phone cannot be looked at: %s %s", type(error).__name__, error)
    return _say(request, "number", sign_in, number=on_phone.number)


def _over(request: HttpRequest, sign_in: SignIn, outcome: str) -> HttpResponse:
    sign_ins.end(sign_in, outcome)
    pushes.end(sign_in.user, sign_in.attempt_hash)
    return redirect(request.path) if request.method == "POST" else _ended(request, sign_in, outcome)


def _ended(request: HttpRequest, sign_in: SignIn, outcome: str) -> HttpResponse:
    return _say(request, "done" if outcome == sign_ins.OK else "refused", sign_in)


def _provider_of(sign_in: SignIn) -> tuple[PhoneFactor, ProviderConfig] | None:
    factor = load(sign_in.kind) if sign_in.kind in FACTORS else None
    if not isinstance(factor, PhoneFactor) or factor.provider_form is None or sign_in.provider is None:
        return None
    try:
        return factor, providers.config_of(sign_in.provider, factor.provider_form)
    except providers.NotConfigured:
        return None


def _say(request: HttpRequest, what: str, sign_in: SignIn, *, status: int = 200, number: str = "") -> HttpResponse:
    return say(request, what, sign_in, status=status, template=TEMPLATE, number=number)
