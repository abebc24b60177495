"""What all paths of profile links share: limits, refusals in words, and what browsers hold their pages to."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from functools import cache, wraps
from typing import Concatenate, ParamSpec

import redis
from django.conf import settings
from django.db import DatabaseError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.template import loader
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from core.client_address import client_address
from core.rate_limits import count_view
from core.redis_store import RedisUnavailable
from wgpeers.models import ProfileLink
from wgpeers.protocol.errors import Refusal

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponse]


def link_view(*methods: str) -> Callable[[View[P]], View[P]]:
    """These methods alone, rate-limited by address, never cached, and every refusal in words."""

    def decorated(view: View[P]) -> View[P]:
        # Exempt, because Django's page of a missing CSRF token would come before our own answer. Downloads and the
        # opening of a link are changed by nobody's being signed in, and whoever could forge them has the link. What
        # changes something for who has opened it is protected by itself (``own_page.act``).
        @csrf_exempt
        @wraps(view)
        @never_cache
        def limited(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
            try:
                if request.method not in methods:
                    raise Refusal("method_not_allowed", f"this is asked for by {' or '.join(methods)}")
                if not count_view("links", client_address(request) or "", settings.LINK_VIEWS_PER_MINUTE):
                    raise Refusal("too_many_requests", "too many requests; wait a minute", 60)
                return view(request, *args, **kwargs)
            except Refusal as refusal:
                return _refused(request, refusal, methods)
            except Http404:
                # Answered here, so that this too is never cached.
                gone = Refusal("not_found", "this link is unknown, expired or used up; ask for a new one")
                return _refused(request, gone, methods)
            except (RedisUnavailable, redis.RedisError, DatabaseError):
                return _refused(request, Refusal("store_down", "try again in a moment", 2), methods)

        return limited

    return decorated


def _refused(request: HttpRequest, refusal: Refusal, methods: tuple[str, ...]) -> HttpResponse:
    """In JSON for programs, as a page for whoever opens the link in a browser."""
    if "text/html" in request.headers.get("Accept", ""):
        response = render(request, "wgpeers/no_link.html", {"refusal": refusal}, status=refusal.status)
        secure(response)
    else:
        response = JsonResponse({"error": refusal.code, "detail": refusal.detail}, status=refusal.status)
    if refusal.code == "method_not_allowed":
        response["Allow"] = ", ".join(methods)
    if refusal.retry_after:
        response["Retry-After"] = str(refusal.retry_after)
    return response


def found(link: ProfileLink | None) -> ProfileLink:
    # Unknown, expired, used and revoked look the same.
    if link is None:
        raise Http404
    return link


def secure(response: HttpResponse, script: str = "") -> HttpResponse:
    """The page holds the way to private keys: no other site may frame it, its address goes to no other one (browsers
    that told nobody would not tell ours either that a form is from here), and it runs and loads nothing, except
    the script at the address ``script``."""
    response["Referrer-Policy"] = "same-origin"
    response["Content-Security-Policy"] = (
        f"default-src 'none'; img-src data:; style-src '{_style()}'; form-action 'self'; "
        f"base-uri 'none'; frame-ancestors 'none'{f'; script-src {script}' if script else ''}"
    )
    return response


@cache
def _style() -> str:
    """The one style that the page may have is the one that stands in it."""
    digest = hashlib.sha256(loader.render_to_string("core/page.css").encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
