"""Taking second factors away. Whatever door it is, the sessions that rest on them end."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import transaction

from core.locking import lock
from core.models import AdminAuthenticator, AdminGuesses, Passkey, RecoveryCode

from . import audit, sessions
from .proof import has_factor


class LastOne(Exception):
    """It is the last factor, and there must be one."""


@transaction.atomic
def reset(administrator: User, by: User | None = None, how: str = "") -> None:
    """Take all of them away and end all sessions: at the next sign-in the administrator sets one up anew."""
    lock(administrator)
    for model in (AdminAuthenticator, Passkey, RecoveryCode, AdminGuesses):
        model._default_manager.filter(administrator=administrator).delete()
    ended = sessions.end_all(administrator)
    audit.note(administrator, f"Reset the second factor{how}; {ended} sessions ended.", by)


@transaction.atomic
def remove_authenticator(administrator: User, session_key: str | None, *, may_be_last: bool) -> None:
    lock(administrator)
    AdminAuthenticator.objects.filter(administrator=administrator).delete()
    _left(administrator, may_be_last)
    sessions.end_all(administrator, but=session_key)
    audit.note(administrator, "Removed the authenticator app.")


@transaction.atomic
def remove_passkey(administrator: User, pk: int, session_key: str | None, *, may_be_last: bool) -> bool:
    """Whether there was such a one of theirs."""
    lock(administrator)
    passkey = Passkey.objects.filter(administrator=administrator, pk=pk).first()
    if passkey is None:
        return False
    passkey.delete()
    _left(administrator, may_be_last)
    sessions.end_all(administrator, but=session_key)
    audit.note(administrator, f"Removed the passkey “{passkey.name}”.")
    return True


def _left(administrator: User, may_be_last: bool) -> None:
    if not may_be_last and not has_factor(administrator):
        raise LastOne
