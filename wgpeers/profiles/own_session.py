"""Who has opened a profile link is let in to its page for a while: a signed cookie, for this link's path alone.

It is no session of the admin's, and nothing of it is stored: each request asks anew whether the link is still good, so
a link that is revoked or ended, or whose user is disabled, ends what was opened by it at once.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.core import signing
from django.http import HttpRequest, HttpResponse

from core.clock import moment
from wgpeers.models import ProfileLink

from . import links

COOKIE = "own_page"
LIFETIME = timedelta(minutes=20)
_SALT = "wgpeers.profiles.own_session"


@dataclass(frozen=True, slots=True)
class Session:
    """``key`` names this visit; ``short_id`` is the link's, as the address has it."""

    link: ProfileLink
    short_id: str
    key: str
    ends: datetime

    @property
    def path(self) -> str:
        return path_of(self.short_id)


def path_of(short_id: str) -> str:
    return f"/k/{short_id}"


def begin(response: HttpResponse, link: ProfileLink, short_id: str, now: float) -> None:
    said = {"link": link.pk, "began": int(now), "key": secrets.token_hex(8)}
    response.set_cookie(
        COOKIE,
        signing.dumps(said, salt=_SALT),
        max_age=LIFETIME,
        path=path_of(short_id),
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Strict",
    )


def of(request: HttpRequest, short_id: str, now: float) -> Session | None:
    """The session of this request, if it has one for this link that is good now."""
    try:
        said = signing.loads(request.COOKIES.get(COOKIE, ""), salt=_SALT)
    except signing.BadSignature:
        return None
    began, ends = moment(said["began"]), moment(said["began"]) + LIFETIME
    if not began <= moment(int(now)) < ends:
        return None
    link = links.for_session(said["link"], short_id, now)
    return Session(link, short_id, said["key"], min(ends, link.expires)) if link else None
