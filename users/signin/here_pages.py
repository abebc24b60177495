"""The sign-in page of factors that we judge ourselves: a challenge for each answer, and the answer from the browser
that was given it."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

from django.contrib.staticfiles import finders
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_GET

from core import clock
from users.factors.registry import FACTORS, load
from users.models import SignIn

from . import sign_ins
from .here import HereFactor
from .outcomes import NotSignedIn
from .pages import POLICY, browser_of, held_to_policy, known_browser, remember_browser, say

log = logging.getLogger(__name__)
# Where browsers get the script from: below a path of users, since static files are for administrators' names alone.
SCRIPT = "/sso/passkeys.js"


@require_GET
def script(request: HttpRequest) -> HttpResponse:
    return HttpResponse(
        _script(),
        content_type="text/javascript; charset=utf-8",
        headers={"Cache-Control": "max-age=300", "X-Content-Type-Options": "nosniff"},
    )


@cache
def _script() -> bytes:
    found = finders.find("core/passkeys.js")
    if not isinstance(found, str):
        raise FileNotFoundError("core/passkeys.js")
    return Path(found).read_bytes()


@held_to_policy("GET", "POST")
def page(request: HttpRequest, page: str) -> HttpResponse:
    """To GET it changes nothing; POST brings the answer."""
    found = _found(page)
    if found is None:
        return say(request, "gone", status=404)
    sign_in, factor = found
    if sign_in.outcome:
        return _say(request, "done" if sign_in.outcome == sign_ins.OK else "refused", sign_in, factor)
    return _take(request, sign_in, factor) if request.method == "POST" else _say(request, "ask", sign_in, factor)


@held_to_policy("POST")
def question(request: HttpRequest, page: str) -> HttpResponse:
    """What the browser needs to answer, as JSON; what it was asked before is void."""
    found = _found(page)
    if found is None or found[0].outcome:
        return JsonResponse({"error": "This sign-in is over. Connect once more."}, status=404)
    sign_in, factor = found
    browser = browser_of(request)
    try:
        asked = factor.question(sign_in, sign_ins.leave(sign_in, browser))
    except NotSignedIn as error:
        log.warning("a sign-in cannot begin: %s", error)
        return JsonResponse({"error": "There is nothing of yours to show here. Ask your administrator."}, status=400)
    return remember_browser(HttpResponse(asked, content_type="application/json"), browser)


def _take(request: HttpRequest, sign_in: SignIn, factor: HereFactor) -> HttpResponse:
    answer = str(request.POST.get("answer", ""))
    challenge = factor.challenge_in(answer)
    asked = sign_ins.by_state(challenge, known_browser(request), clock.now())
    if asked is None or asked.pk != sign_in.pk:
        return say(request, "gone", status=400)
    try:
        factor.judge(sign_in, challenge, answer)
        sign_ins.end(sign_in, sign_ins.OK)
    except NotSignedIn as error:
        log.warning("a sign-in was refused: %s", error)
        sign_ins.end(sign_in, error.code)
    return redirect(request.path)


def _found(page: str) -> tuple[SignIn, HereFactor] | None:
    sign_in = sign_ins.by_page(page, clock.now())
    factor = load(sign_in.kind) if sign_in and sign_in.kind in FACTORS else None
    return (sign_in, factor) if sign_in and isinstance(factor, HereFactor) else None


def _say(request: HttpRequest, what: str, sign_in: SignIn, factor: HereFactor) -> HttpResponse:
    address = f"{factor.our_origin()}{SCRIPT}"
    response = say(request, what, sign_in, template=factor.page_template, script=address)
    response["Content-Security-Policy"] = f"{POLICY}; script-src {address}; connect-src 'self'"
    return response
