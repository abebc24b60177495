"""What people are told when a page is not there, not theirs, or fails. Clients' paths answer programs, in JSON."""

from __future__ import annotations

import json
import sys

import redis
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.template import loader
from django.urls import reverse
from django.views.defaults import server_error

from core.redis_store import RedisUnavailable

STORE_DOWN = (OperationalError, InterfaceError, redis.RedisError, RedisUnavailable)
WORDS = """Not right now.

The database or Redis cannot be reached, or takes nothing: a full disk, for example. What you sent was not stored.
Tunnels go on. Administrators: the first page of the admin, the terminal of bin/run and var/log/web.log say more.
"""
FOR_PROGRAMS = ("/key/", "/ku/")
# The page has its style in itself, and loads nothing.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def failed(request: HttpRequest) -> HttpResponse:
    """The answer to a page that raised, whether its view did or what is around it (a session that cannot be stored)."""
    if isinstance(sys.exc_info()[1], STORE_DOWN):
        return HttpResponse(WORDS, content_type="text/plain", status=503, headers={"Retry-After": "10"})
    words = "This is a fault of ours, and nothing that you did. What happened is in var/log/web.log."
    try:
        return _page(request, 500, "Something went wrong here", words)
    except Exception:  # whatever broke the page may break this one
        return server_error(request)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    words = "The address is wrong, or what was there has gone."
    return _page(request, 404, "There is no such page", words)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    words = "Your account has not the right for this. Ask an administrator for a role that has it."
    return _page(request, 403, "This is not for your account", words)


def not_that_way(request: HttpRequest) -> HttpResponse:
    """The address is of a button, and was opened by itself."""
    words = "What is at this address is done by a button of another page. Nothing was done now. Go back and press it."
    return _page(request, 405, "This is not a page", words)


def not_from_our_page(request: HttpRequest, reason: str = "") -> HttpResponse:
    """The token of a form does not fit. ``reason`` is for developers."""
    words = (
        "Nothing was sent. The page was open for too long, somebody signed in or out since, or the browser keeps no "
        "cookies of this site. Go back, load the page anew, and try again."
    )
    return _page(request, 403, "Please try again", words)


def _page(request: HttpRequest, status: int, title: str, words: str) -> HttpResponse:
    """Without a look into the database or the session: whichever of them is broken, the page is there."""
    path = request.path_info
    if path.startswith(FOR_PROGRAMS):
        code = {403: "forbidden", 404: "not_found"}.get(status, "internal")
        return HttpResponse(json.dumps({"error": code}), content_type="application/json", status=status)
    first = reverse("admin:index") if path.startswith("/admin/") else ""
    context = {"title": title, "words": words, "page": first, "page_title": "To the first page"}
    text = loader.render_to_string("error.html", context)
    return HttpResponse(text, status=status, headers={"Content-Security-Policy": POLICY})
