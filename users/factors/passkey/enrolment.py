"""Which passkeys a user has: rows of their own, and one enrolment that is another one whenever these change, so that
what was remembered of passes, and what somebody decided by, is void then."""

from __future__ import annotations

from django.db import IntegrityError, transaction

from core.crypto import random_text
from core.locking import lock
from core.passkeys import NotAccepted
from users.factors import enrolments
from users.models import Enrolment, SignIn, UserPasskey, VpnUser

KIND = "passkey"


@transaction.atomic
def add(row: UserPasskey, before: Enrolment | None) -> None:
    """Keep ``row``, unsaved yet, where its user still has ``before``. Raise ``Changed``; ``NotAccepted`` where somebody
    has it already."""
    enrolments.enrol_in_place_of(before, row.user, KIND, hash=random_text(32))
    _forget_sign_ins(row.user)
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        raise NotAccepted("This passkey is there already.") from None


@transaction.atomic
def remove(passkey: UserPasskey, *, may_be_last: bool) -> bool:
    """Whether it was removed: not the last one, unless it ``may_be_last``, and none that is gone."""
    lock(passkey.user)
    theirs = UserPasskey.objects.filter(user=passkey.user)
    if not may_be_last and not theirs.exclude(pk=passkey.pk).exists():
        return False
    deleted, _ = theirs.filter(pk=passkey.pk).delete()
    changed(passkey.user)
    return bool(deleted)


@transaction.atomic
def changed(user: VpnUser) -> None:
    """What passed before does not any more, as their passkeys are others now, or one of them is locked."""
    lock(user)
    if UserPasskey.objects.filter(user=user).exists():
        enrolments.enrol(user, KIND, hash=random_text(32))
    else:
        enrolments.withdraw(user, KIND)
    _forget_sign_ins(user)


def _forget_sign_ins(user: VpnUser) -> None:
    """Those that passed, and have not led to a connection yet."""
    SignIn.objects.filter(user=user, kind=KIND, outcome="ok").delete()
