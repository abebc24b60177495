"""Profile downloads by temporary link: the page for people, the archives, and what clients import by themselves."""

from __future__ import annotations

from urllib.parse import quote

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render

from core import client_wheel, clock
from core.client_address import client_address
from wgpeers.lifecycle import decisions
from wgpeers.models import ProfileLink
from wgpeers.protocol.errors import Refusal

from . import content, links, own_page, own_session
from .answers import found, link_view, secure


def _use(link: ProfileLink, now: float) -> None:
    if not links.use(link, now):
        raise Http404


@link_view("GET")
def archive(request: HttpRequest, key_id: str, kind: str) -> HttpResponse:
    now = clock.now()
    link = found(links.by_key(key_id, now))
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
    link = found(links.by_key(key_id, now))
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
    link = found(links.by_short(short_id, now))
    links.start_ending(link, now)
    texts = links.profiles(link)
    _use(link, now)
    return JsonResponse(texts)


@link_view("GET", "POST")
def page(request: HttpRequest, short_id: str) -> HttpResponse:
    """The page for people. Chat programs and mail scanners fetch every link they see, so to GET it changes nothing: the
    button on it (POST) starts the link's ten minutes, and lets this browser in."""
    now = clock.now()
    if request.method == "POST":
        link = found(links.by_short(short_id, now))
        links.start_ending(link, now)
        decisions.record_own(link.user, "own_page_opened", now, client_address(request))
        response = secure(redirect(request.path))  # so that it can be reloaded
        own_session.begin(response, link, short_id, now)
        return response
    if session := own_session.of(request, short_id, now):
        return own_page.shown(request, session, now)
    link = found(links.by_short(short_id, now))
    context = {"minutes": links.MINUTES_ONCE_OPENED, "opened": link.opened is not None}
    return secure(render(request, "wgpeers/unopened_link.html", context))


@link_view("GET")
def client(request: HttpRequest, name: str) -> HttpResponse:
    """Our client for Linux, which a user's machine has no other way to get."""
    wheel = client_wheel.offered(settings.CLIENT_WHEEL)
    if wheel is None or name != wheel.name:
        raise Refusal("not_found", "there is no such file here")
    return HttpResponse(wheel.data, content_type="application/zip")


def _download(data: bytes, name: str, mime: str) -> HttpResponse:
    response = HttpResponse(data, content_type=mime)
    # The ending stays, whatever becomes of the rest: by it clients know what they get.
    stem, dot, ending = name.rpartition(".")
    said = f'attachment; filename="{content.ascii_name(stem)}{dot}{ending}"'
    # As it is, for who can read it (RFC 6266).
    response["Content-Disposition"] = said if name.isascii() else f"{said}; filename*=UTF-8''{quote(name, safe='')}"
    return response
