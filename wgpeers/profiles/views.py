"""Profile downloads by temporary link: the page for people, the archives, and what clients import by themselves."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec
from urllib.parse import quote

import redis
import segno
from django.conf import settings
from django.db import DatabaseError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from core import client_wheel, clock
from core.rate_limits import count_view
from core.redis_store import RedisUnavailable
from servers.models import Server
from wgpeers.models import ProfileLink
from wgpeers.protocol.errors import Refusal
from wgpeers.views import client_address

from . import content, links

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponse]


def link_view(*methods: str) -> Callable[[View[P]], View[P]]:
    """These methods alone, rate-limited by address, never cached, and every refusal in words."""

    def decorated(view: View[P]) -> View[P]:
        # Exempt, because Django's page of a missing CSRF token would come before our own answer. Nothing here is
        # changed by who is signed in, and whoever could forge the opening of a link has the link.
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
        _secure(response)
    else:
        response = JsonResponse({"error": refusal.code, "detail": refusal.detail}, status=refusal.status)
    if refusal.code == "method_not_allowed":
        response["Allow"] = ", ".join(methods)
    if refusal.retry_after:
        response["Retry-After"] = str(refusal.retry_after)
    return response


def _found(link: ProfileLink | None) -> ProfileLink:
    # Unknown, expired, used and revoked look the same.
    if link is None:
        raise Http404
    return link


def _use(link: ProfileLink, now: float) -> None:
    if not links.use(link, now):
        raise Http404


@link_view("GET")
def archive(request: HttpRequest, key_id: str, kind: str) -> HttpResponse:
    now = clock.now()
    link = _found(links.by_key(key_id, now))
    texts = links.profiles(link)
    _use(link, now)
    data, mime = (
        (links.as_tar(texts, now), "application/x-tar")
        if kind == "tar"
        else (links.as_zip(texts, now), "application/zip")
    )
    return _download(data, f"{link.user.name}.{kind}", mime)


@link_view("GET")
def one_profile(request: HttpRequest, key_id: str, server_id: str) -> HttpResponse:
    now = clock.now()
    link = _found(links.by_key(key_id, now))
    server = next((server for server in links.servers(link) if server.public_id == server_id), None)
    if server is None:
        raise Http404
    text = content.full(link.user, server)
    _use(link, now)
    return _download(text.encode(), content.file_name(link.user, server), "application/x-openvpn-profile")


@link_view("GET")
def import_profiles(request: HttpRequest, short_id: str) -> HttpResponse:
    """What a client that was told ``pritunl://HOST/ku/<short>`` fetches."""
    now = clock.now()
    link = _found(links.by_short(short_id, now))
    links.start_ending(link, now)
    texts = links.profiles(link)
    _use(link, now)
    return JsonResponse(texts)


@link_view("GET", "POST")
def page(request: HttpRequest, short_id: str) -> HttpResponse:
    """The page for people. Chat programs and mail scanners fetch every link they see, so to GET it changes nothing: the
    button on it (POST) starts the link's ten minutes."""
    now = clock.now()
    link = _found(links.by_short(short_id, now))
    if request.method == "POST":
        links.start_ending(link, now)
        return _secure(redirect(request.path))  # so that it can be reloaded
    if link.opened is None:
        return _secure(render(request, "wgpeers/unopened_link.html", {"minutes": links.MINUTES_ONCE_OPENED}))
    servers: list[Server] = links.servers(link)
    address = import_address(request, short_id)
    context = {
        "link": link,
        "ready": link.user.key_ready,
        "servers": servers,
        "key_id": link.key_id.reveal(),
        "import_address": address,
        "importable": links.importable(request.META.get("HTTP_HOST", "")),
        "client": client_wheel.offered(settings.CLIENT_WHEEL),
        "host": _host(request),
        "certificate_known": links.certificate_known(),
        "qr": segno.make(address, error="m").svg_data_uri(scale=5, border=2),
    }
    return _secure(render(request, "wgpeers/link.html", context))


@link_view("GET")
def client(request: HttpRequest, name: str) -> HttpResponse:
    """Our client for Linux, which a user's machine has no other way to get."""
    wheel = client_wheel.offered(settings.CLIENT_WHEEL)
    if wheel is None or name != wheel.name:
        raise Refusal("not_found", "there is no such file here")
    return HttpResponse(wheel.data, content_type="application/zip")


def _secure(response: HttpResponse) -> HttpResponse:
    """The page holds the way to private keys: no other site may frame it, and its address goes nowhere."""
    response["Referrer-Policy"] = "no-referrer"
    response["Content-Security-Policy"] = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
    return response


def import_address(request: HttpRequest, short_id: str) -> str:
    """What a client imports: by the address at which the person is looking at the page."""
    return f"pritunl://{_host(request)}/ku/{short_id}"


def _host(request: HttpRequest) -> str:
    # A longer name is none, and would not fit into a QR code.
    return str(request.META.get("HTTP_HOST", ""))[:255]


def _download(data: bytes, name: str, mime: str) -> HttpResponse:
    response = HttpResponse(data, content_type=mime)
    # The ending stays, whatever becomes of the rest: by it clients know what they get.
    stem, dot, ending = name.rpartition(".")
    said = f'attachment; filename="{content.ascii_name(stem)}{dot}{ending}"'
    # As it is, for who can read it (RFC 6266).
    response["Content-Disposition"] = said if name.isascii() else f"{said}; filename*=UTF-8''{quote(name, safe='')}"
    return response
