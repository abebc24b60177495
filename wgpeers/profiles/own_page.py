"""The user's own page behind their profile link: downloads, their second factors, devices and connections.

Everything on it is of the user whose link was opened: rows are looked up among theirs, never by an id alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import segno
from django.conf import settings
from django.core import signing
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.csrf import csrf_protect

from core import client_wheel, clock
from core.client_address import client_address
from servers.policy import policy_of
from users.factors import own
from users.factors.panels import NotDone, ShownOnce, TryAgain
from users.factors.proofs import NotProven
from users.models import Device
from wgpeers.lifecycle import decisions, devices, for_users
from wgpeers.lifecycle.ending import end
from wgpeers.models import Connection, Decision, EndReason, State

from . import links, own_session
from .answers import link_view, secure
from .own_session import Session

REFUSALS_SHOWN = 10
LONGEST_NAME = 64
_SAID = "wgpeers.profiles.own_page said"


def shown(request: HttpRequest, session: Session, now: float, *, error: str = "") -> HttpResponse:
    """The page. ``error``: why what was asked for was not done."""
    link, visit = session.link, _visit(request, session, now)
    parts = own.parts(visit, _act_url(session))
    context = {
        **_downloads(request, session, now),
        "link": link,
        "user": link.user,
        "ends": session.ends,
        "said": _said(request),
        "error": error,
        "act_url": _act_url(session),
        "to_do": [part for part in parts if part["required"] and not part["enrolment"]],
        "parts": [part for part in parts if not (part["required"] and not part["enrolment"])],
        "devices": link.user.devices.order_by("revoked", "-last_seen"),
        "connections": _live(session).select_related("server"),
        "refusals": [(each, for_users.explain(each.code)) for each in _refusals(session)],
    }
    return secure(render(request, "wgpeers/link.html", context, status=400 if error else 200))


def _downloads(request: HttpRequest, session: Session, now: float) -> dict[str, Any]:
    link = session.link
    address = import_address(request, session.short_id)
    return {
        "ready": link.user.key_ready,
        "servers": links.servers(link),
        "key_id": link.key_id.reveal(),
        "import_address": address,
        "importable": links.importable(request.META.get("HTTP_HOST", "")),
        "short_open": link.short_expires > clock.moment(now),
        "client": client_wheel.offered(settings.CLIENT_WHEEL),
        "host": _host(request),
        "certificate_known": links.certificate_known(),
        "qr": segno.make(address, error="m").svg_data_uri(scale=5, border=2),
    }


def import_address(request: HttpRequest, short_id: str) -> str:
    """What a client imports: by the address at which the person is looking at the page."""
    return f"pritunl://{_host(request)}/ku/{short_id}"


def _host(request: HttpRequest) -> str:
    # A longer name is none, and would not fit into a QR code.
    return str(request.META.get("HTTP_HOST", ""))[:255]


@link_view("POST")
@csrf_protect
def act(request: HttpRequest, short_id: str) -> HttpResponse:
    """A button of the page: ``do`` says which."""
    now = clock.now()
    session = own_session.of(request, short_id, now)
    action = ACTIONS.get(request.POST.get("do", ""))
    if session is None or action is None:
        raise Http404
    try:
        return action(request, session, now)
    except TryAgain as error:
        return _show_once(request, session, error.shown, now, error=str(error))
    except NotProven as error:
        _record(request, session, now, "own_page_refused", error.code, allowed=False)
        return shown(request, session, now, error=str(error))
    except NotDone as error:
        return shown(request, session, now, error=str(error))


def _factor(request: HttpRequest, session: Session, now: float) -> HttpResponse:
    try:
        done = own.act(_visit(request, session, now))
    except own.NoSuchAction:
        raise Http404 from None
    _record(request, session, now, "own_page_changed", f"{done.message} {done.detail}".strip())
    return _show_once(request, session, done.shown, now) if done.shown else _back(session, done.message)


def _rename_device(request: HttpRequest, session: Session, now: float) -> HttpResponse:
    device, name = _device(request, session), request.POST.get("name", "").strip()
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise NotDone(f"The device was not renamed: a name has at most {LONGEST_NAME} characters, and no line breaks.")
    Device.objects.filter(pk=device.pk).update(given_name=name)
    return _back(session, "The device is renamed.")


def _revoke_device(request: HttpRequest, session: Session, now: float) -> HttpResponse:
    device = _device(request, session)
    if devices.revoke(device, now):
        _record(request, session, now, "own_page_changed", f"Revoked the device {device}.")
    return _back(session, f"{device} is revoked.")


def _end_connection(request: HttpRequest, session: Session, now: float) -> HttpResponse:
    mine = _live(session).filter(public_id=request.POST.get("connection", "")).select_related("server").first()
    ended = mine is not None and end([mine], EndReason.BY_USER, now)
    return _back(session, "The connection is ended." if ended else "That connection had ended already.")


def _end_link(request: HttpRequest, session: Session, now: float) -> HttpResponse:
    links.revoke(session.link, now)
    _record(request, session, now, "own_page_changed", "Ended the profile link.")
    response = secure(render(request, "wgpeers/ended_link.html"))
    response.delete_cookie(own_session.COOKIE, path=session.path, samesite="Strict")
    return response


ACTIONS: dict[str, Callable[[HttpRequest, Session, float], HttpResponse]] = {
    "factor": _factor,
    "rename_device": _rename_device,
    "revoke_device": _revoke_device,
    "end_connection": _end_connection,
    "end_link": _end_link,
}


def _visit(request: HttpRequest, session: Session, now: float) -> own.Visit:
    return own.Visit(
        user=session.link.user,
        policies=[policy_of(server) for server in links.servers(session.link)],
        address=client_address(request) or "",
        key=session.key,
        now=now,
        sent={name: str(value) for name, value in request.POST.items()},
        origin=f"{request.scheme}://{_host(request)}",
    )


def _device(request: HttpRequest, session: Session) -> Device:
    device = session.link.user.devices.filter(device_id=request.POST.get("device", "")).first()
    if device is None:
        raise NotDone("There is no such device any more.")
    return device


def _live(session: Session) -> Any:
    return Connection.objects.filter(user=session.link.user).exclude(state=State.ENDED).order_by("-created")


def _refusals(session: Session) -> list[Decision]:
    refused = Decision.objects.filter(user=session.link.user, allowed=False).exclude(code__in=EndReason.values)
    return list(refused.order_by("-time")[:REFUSALS_SHOWN])


def _record(
    request: HttpRequest, session: Session, now: float, code: str, detail: str, *, allowed: bool = True
) -> None:
    decisions.record_own(session.link.user, code, now, client_address(request), allowed=allowed, detail=detail)


def _show_once(request: HttpRequest, session: Session, once: ShownOnce, now: float, *, error: str = "") -> HttpResponse:
    """The one answer that shows a secret; it is never shown again."""
    kind = request.POST.get("factor", "")
    parts = own.parts(_visit(request, session, now), _act_url(session))
    part = next(part for part in parts if part["kind"] == kind)
    context = {
        "title": once.title,
        "template": once.template,
        "part": part,
        "back": session.path,
        "error": error,
        "script": once.script,
        **once.context,
    }
    response = render(request, "wgpeers/own_shown_once.html", context, status=400 if error else 200)
    return secure(response, once.script)


def _act_url(session: Session) -> str:
    return f"{session.path}/do"


def _back(session: Session, message: str) -> HttpResponse:
    """To the page, which can be reloaded then. It says only what is signed: nobody can have it say something else."""
    return secure(redirect(f"{session.path}?said={signing.dumps([session.key, message], salt=_SAID)}"))


def _said(request: HttpRequest) -> str:
    try:
        return str(signing.loads(request.GET.get("said", ""), salt=_SAID)[1])
    except signing.BadSignature:
        return ""
