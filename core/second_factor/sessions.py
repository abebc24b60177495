"""Sessions of administrators: where they began, and ending them."""

from __future__ import annotations

import secrets
from datetime import timedelta

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest

from core import clock
from core.models import AdminSession
from core.pace import Pace
from core.pruning import delete_old
from core.session_store import ABOUT

# That a session is in use is written down so often at most.
SEEN_EVERY = timedelta(minutes=5).total_seconds()


def note_use(request: HttpRequest, address: str) -> None:
    """Keep in the session where it began and, now and then, that it is used. ``address``: the client's."""
    now, about = clock.now(), request.session.get(ABOUT)
    if about is None:
        browser = "".join(each for each in request.META.get("HTTP_USER_AGENT", "") if each.isprintable())[:200]
        about = {"id": secrets.token_hex(12), "began": now, "browser": browser, "address": address}
    elif abs(now - about["seen"]) < SEEN_EVERY and about["address"] == address:
        return
    request.session[ABOUT] = {**about, "seen": now, "address": address}


def of(administrator: User) -> QuerySet[AdminSession]:
    """Those that have not run out, the one that was used last first."""
    mine = AdminSession.objects.filter(administrator=administrator, expire_date__gt=clock.moment(clock.now()))
    return mine.order_by("-seen", "public_id")


def end(administrator: User, public_id: str) -> bool:
    """End one; whether there was such a one. A request of it that is under way brings it not back: the store only ever
    changes a row that is there."""
    found = AdminSession.objects.filter(administrator=administrator, public_id=public_id).exclude(public_id="")
    return bool(found.delete()[0])


def end_all(administrator: User, but: str | None = None) -> int:
    """End all sessions but the one with the key ``but``; how many those were."""
    return AdminSession.objects.filter(administrator=administrator).exclude(session_key=but or "").delete()[0]


def in_words(browser: str) -> str:
    """``Firefox on Linux``, of what a browser says it is: to recognise one's own, no more."""
    programs = (("Edg", "Edge"), ("OPR", "Opera"), ("Firefox", "Firefox"), ("Chrome", "Chrome"), ("Safari", "Safari"))
    systems = (
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS", "macOS"),
        ("CrOS", "ChromeOS"),
        ("Linux", "Linux"),
    )
    program = next((name for part, name in programs if part in browser), "")
    system = next((name for part, name in systems if part in browser), "")
    return f"{program or 'A browser'} on {system}" if system else program or browser[:40] or "a program without a name"


def prune(now: float, pace: Pace) -> None:
    """Delete those that have run out."""
    delete_old(AdminSession.objects.filter(expire_date__lt=clock.moment(now)), pace)
