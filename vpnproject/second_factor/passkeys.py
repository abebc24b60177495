"""Making and showing passkeys: the browser fetches what it needs, and sends its answer in a form."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from core import clock
from core.admin.asking_again import ask_again
from core.passkeys import NotAccepted
from core.redis_store import RedisUnavailable
from core.second_factor import changes, passkeys
from core.second_factor.proof import is_fresh, is_shown
from vpnproject.leading_on import by_way_of, wanted

from .account import LAST_ONE, home, may_be_last
from .common import administrator, passed, set_up

REDIS_DOWN = "Passkeys cannot be used now, because Redis is down."


@require_POST
def question(request: HttpRequest) -> HttpResponse:
    return _options(passkeys.question, request)


@require_POST
def creation(request: HttpRequest) -> HttpResponse:
    if not is_fresh(request):
        return JsonResponse({"error": "Your second factor is asked for again first: load this page anew."}, status=403)
    return _options(passkeys.creation, request)


def _options(make: Callable[[HttpRequest, User], str], request: HttpRequest) -> HttpResponse:
    try:
        response = HttpResponse(make(request, administrator(request)), content_type="application/json")
    except NotAccepted as error:
        return JsonResponse({"error": str(error)}, status=400)
    except RedisUnavailable:
        return JsonResponse({"error": REDIS_DOWN}, status=503)
    response["Cache-Control"] = "no-store"
    return response


@require_POST
def verify(request: HttpRequest) -> HttpResponse:
    try:
        shown = passkeys.show(request, administrator(request), request.POST.get("answer", ""), clock.now())
    except (NotAccepted, RedisUnavailable) as error:
        messages.error(request, str(error) if isinstance(error, NotAccepted) else REDIS_DOWN)
        again = "second_factor:confirm" if is_shown(request) else "second_factor:verify"
        return redirect(by_way_of(reverse(again), wanted(request)))
    passed(request, f"the passkey “{shown.name}”")
    return redirect(wanted(request))


@require_POST
def add(request: HttpRequest) -> HttpResponse:
    if not is_fresh(request):
        return ask_again(request, home())
    name, answer, first = request.POST.get("name", ""), request.POST.get("answer", ""), not is_shown(request)
    try:
        passkeys.add(request, administrator(request), name, answer, clock.now(), first=first)
    except (NotAccepted, RedisUnavailable) as error:
        messages.error(request, str(error) if isinstance(error, NotAccepted) else REDIS_DOWN)
        return redirect(by_way_of(reverse("second_factor:enrol"), wanted(request)) if first else home())
    return set_up(request, "a passkey")


@require_POST
def remove(request: HttpRequest) -> HttpResponse:
    if not is_fresh(request):
        return ask_again(request, home())
    number, user = request.POST.get("passkey", ""), administrator(request)
    pk = int(number) if number.isascii() and number.isdigit() and len(number) < 19 else 0
    try:
        gone = changes.remove_passkey(user, pk, request.session.session_key, may_be_last=may_be_last())
    except changes.LastOne:
        messages.error(request, LAST_ONE)
    else:
        messages.success(request, "Removed the passkey. Your other sessions ended." if gone else "It is gone already.")
    return redirect(home())
