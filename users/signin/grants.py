"""Asking a provider again about who signed in, by a refresh token or in its directory: for who is connected, and where
a factor token stands for a sign-in.

Most providers take a refresh token once and give the next one with their answer; one that is shown twice ends all of
them. So of two who would ask only one does, and the new one is stored before anything else is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from django.db.models import F, QuerySet

from core.clock import moment
from core.crypto import Secret
from core.http import NoAnswer
from users.factors.remembered import forget
from users.models import Provider, VpnUser

from .models import SignInGrant
from .outcomes import NotSignedIn, SignedIn

# Longer than one answer may take: who asks has the grant to themselves for so long.
CLAIMED = timedelta(minutes=1)

# Asks; calls its argument with the next refresh token, where there is one, as soon as it has it.
Renew = Callable[[Callable[[str], None]], SignedIn | None]


def keep(user: VpnUser, provider: Provider, signed: SignedIn, every: timedelta, now: datetime) -> None:
    """In the place of an older one. ``every``: how often it is asked; zero: never, and nothing is kept."""
    if not every or not (signed.refresh_token or signed.account):
        SignInGrant.objects.filter(user=user, provider=provider).delete()
        return
    values = {
        "refresh_token": Secret.of(signed.refresh_token) if signed.refresh_token else Secret(""),
        "account": signed.account,
        "groups": _groups(signed),
        "agreed": now,
        "due": now + every,
        "silent_since": None,
    }
    SignInGrant.objects.update_or_create(
        user=user, provider=provider, create_defaults=values, defaults={**values, "serial": F("serial") + 1}
    )


def of(user: VpnUser, provider: str) -> SignInGrant | None:
    """``provider``: its public id."""
    return SignInGrant.objects.filter(user=user, provider__public_id=provider).first()


def claim(grant: SignInGrant, now: float) -> bool:
    """Of all who have seen ``grant`` as it is, only one may ask."""
    return _same(grant).filter(due=grant.due).update(due=moment(now) + CLAIMED) == 1


def ask(grant: SignInGrant, renew: Renew, every: timedelta, now: float) -> None:
    """Whoever has claimed ``grant`` asks; then it has the groups that the provider names now. Raise ``NotSignedIn``
    where the provider lets its user in no longer, and ``NoAnswer``."""

    def store(token: str) -> None:
        if _same(grant).update(refresh_token=Secret.of(token), serial=F("serial") + 1):
            grant.serial += 1

    try:
        signed = renew(store)
    except NoAnswer:
        _same(grant).filter(silent_since=None).update(silent_since=moment(now))
        raise
    except NotSignedIn:
        if not _same(grant).exists():
            return  # they have signed in anew meanwhile, and what was shown is no longer good
        raise
    if signed:
        grant.groups = _groups(signed)
    _same(grant).update(groups=grant.groups, agreed=moment(now), due=moment(now) + every, silent_since=None)


def end(grant: SignInGrant) -> None:
    """Nothing that was remembered of passes stands any more, and there is nobody left to ask about."""
    forget(grant.user)
    _same(grant).delete()


def drop(grant: SignInGrant) -> None:
    """Nobody asks about it any more."""
    _same(grant).delete()


def _same(grant: SignInGrant) -> QuerySet[SignInGrant]:
    return SignInGrant.objects.filter(pk=grant.pk, serial=grant.serial)


def _groups(signed: SignedIn) -> list[str] | None:
    return None if signed.groups is None else list(signed.groups)
