"""The sign-in page: for which device and server, from where, a code to compare, one button. It needs no JavaScript.

Nothing happens before the button is pressed, and only the browser in which it was pressed can bring an answer back:
else somebody who holds a stolen profile could send its owner straight to a provider that knows them, and be let in.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from core import clock
from core.client_address import client_address
from core.crypto import random_text
from core.http import NoAnswer
from core.rate_limits import count_view
from core.redis_store import RedisUnavailable
from users.factors import providers
from users.factors.providers import ProviderConfig
from users.factors.registry import FACTORS, load
from users.models import SignIn

from . import grants, sign_ins
from .factor import SignInFactor
from .outcomes import NotSignedIn

log = logging.getLogger(__name__)
P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponse]

POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
BROWSER = re.compile(r"[A-Za-z0-9]{32}", re.ASCII)


def held_to_policy(*methods: str) -> Callable[[View[P]], View[P]]:
    """These methods, so many from one address, never cached, and held to our policy."""

    def decorated(view: View[P]) -> View[P]:
        @wraps(view)
        @never_cache
        @require_http_methods(list(methods))
        def secured(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
            try:
                few = count_view("sign-ins", client_address(request) or "", settings.SIGN_IN_VIEWS_PER_MINUTE)
                response = view(request, *args, **kwargs) if few else say(request, "busy", status=429)
            except (RedisUnavailable, DatabaseError) as error:
                log.error("a store is down: %s", type(error).__name__)
                response = say(request, "busy", status=503)
            response.headers.setdefault("Content-Security-Policy", POLICY)
            # Addresses here say of which attempt they are.
            response["Referrer-Policy"] = "same-origin"
            return response

        return secured

    return decorated


@held_to_policy("GET", "POST")
def page(request: HttpRequest, page: str) -> HttpResponse:
    """To GET it changes nothing: the button on it (POST) goes on to the provider."""
    sign_in = sign_ins.by_page(page, clock.now())
    if sign_in is None or sign_in.provider is None:
        return say(request, "gone", status=404)
    if sign_in.outcome:
        return say(request, "done" if sign_in.outcome == sign_ins.OK else "refused", sign_in)
    return _go_on(request, sign_in) if request.method == "POST" else say(request, "ask", sign_in)


def _go_on(request: HttpRequest, sign_in: SignIn) -> HttpResponse:
    found = _provider_of(sign_in)
    if found is None:
        return say(request, "unavailable", sign_in, status=503)
    factor, config = found
    browser = browser_of(request)
    try:
        address = factor.address_of(config, sign_ins.leave(sign_in, browser))
    except NoAnswer as error:
        log.warning("a sign-in cannot begin: %s", error)
        return say(request, "unavailable", sign_in, status=503)
    # No redirect: browsers hold it to the page's form-action, and wherever the provider goes from there too.
    return remember_browser(say(request, "leaving", sign_in, address=address), browser)


@held_to_policy("GET")
def back(request: HttpRequest) -> HttpResponse:
    """Where the provider sends the browser."""
    sent = {name: value for name, value in request.GET.items() if isinstance(value, str)}
    state = sent.get("state", "")
    sign_in = sign_ins.by_state(state, known_browser(request), clock.now())
    if sign_in is None:
        return say(request, "gone", status=400)
    found = _provider_of(sign_in)
    if found is None or sign_in.provider is None:
        return say(request, "unavailable", sign_in, status=503)
    factor, config = found
    try:
        signed = factor.finish(config, sign_in, sent, state)
        grants.keep(sign_in.user, sign_in.provider, signed, factor.every(config), clock.moment(clock.now()))
        sign_ins.end(sign_in, sign_ins.OK, signed.groups)
    except NotSignedIn as error:
        log.warning("a sign-in was refused: %s", error)
        sign_ins.end(sign_in, error.code)
    except NoAnswer as error:
        log.warning("a sign-in cannot be judged: %s", error)
        return say(request, "unavailable", sign_in, status=503)
    # So that a reload asks nobody again, and what the provider sent stands in no history.
    return redirect(f"/sso/{sign_in.page}")


def _provider_of(sign_in: SignIn) -> tuple[SignInFactor, ProviderConfig] | None:
    factor = load(sign_in.kind) if sign_in.kind in FACTORS else None
    if not isinstance(factor, SignInFactor) or factor.provider_form is None or sign_in.provider is None:
        return None
    try:
        return factor, providers.config_of(sign_in.provider, factor.provider_form)
    except providers.NotConfigured:
        return None


def say(
    request: HttpRequest,
    what: str,
    sign_in: SignIn | None = None,
    *,
    status: int = 200,
    template: str = "users/sign_in.html",
    **more: str,
) -> HttpResponse:
    code = sign_ins.code_of(sign_in) if sign_in else ""
    context = {"what": what, "sign_in": sign_in, "code": code, **more}
    return render(request, template, context, status=status)


def known_browser(request: HttpRequest) -> str:
    """The name that we gave this browser; empty where we did not."""
    return request.COOKIES.get(_cookie(), "")


def browser_of(request: HttpRequest) -> str:
    """The name of this browser, for ``remember_browser``: as it was given one, or a new one."""
    known = known_browser(request)
    return known if BROWSER.fullmatch(known) else random_text(32)


def remember_browser(response: HttpResponse, browser: str) -> HttpResponse:
    response.set_cookie(_cookie(), browser, secure=settings.SESSION_COOKIE_SECURE, httponly=True, samesite="Lax")
    return response


def _cookie() -> str:
    # By this name a browser takes it from nobody but this very host, over TLS.
    return "__Host-sign-in" if settings.SESSION_COOKIE_SECURE else "sign-in"
