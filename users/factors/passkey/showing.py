"""Showing a passkey of a user, on whichever page."""

from __future__ import annotations

from django.db.models import QuerySet

from core import passkeys
from core.passkeys import NotAccepted, Site
from users.models import UserPasskey, VpnUser

from .enrolment import changed


def usable(user: VpnUser, site: Site) -> QuerySet[UserPasskey]:
    """Those that can be asked for now."""
    return UserPasskey.objects.filter(user=user, rp_id=site.name, locked=None)


def show(user: VpnUser, site: Site, answer: str, challenge: bytes, now: float) -> UserPasskey:
    """The one that the browser showed. Raise ``NotAccepted``."""
    theirs = UserPasskey.objects.filter(user=user)
    try:
        return passkeys.shown(site, theirs, answer, challenge, now)
    except NotAccepted as error:
        if error.code == passkeys.COPIED:
            changed(user)  # what the copy may have passed before stands for nothing any more
        raise
