"""A user's enrolments: the one place that writes them, whichever factor and door it is."""

from __future__ import annotations

from django.db import transaction

from core.crypto import Secret
from core.locking import lock
from users.models import Enrolment, VpnUser

from .remembered import forget


class Changed(Exception):
    """What the user has is not any more what somebody decided by."""


@transaction.atomic
def enrol(user: VpnUser, kind: str, *, secret: Secret | None = None, hash: str = "", counter: int = 0) -> Enrolment:
    """Put a new enrolment in the place of the old one. What was remembered of passes is void."""
    # A new row, never the old one changed: what an attempt that began before would use up is not this one's, and no
    # step of the old secret stands in the way of its first code.
    withdraw(user, kind)
    return Enrolment.objects.create(user=user, kind=kind, secret=secret or Secret(""), hash=hash, counter=counter)


@transaction.atomic
def enrol_in_place_of(
    before: Enrolment | None,
    user: VpnUser,
    kind: str,
    *,
    secret: Secret | None = None,
    hash: str = "",
    counter: int = 0,
) -> Enrolment:
    """As ``enrol``, where the user still has ``before`` (None: nothing of this kind), which was proven. Else raise
    ``Changed``: of two who set the first PIN at the same moment, one hears that it is not theirs."""
    lock(user)
    if Enrolment.objects.filter(user=user, kind=kind).first() != before:
        raise Changed
    return enrol(user, kind, secret=secret, hash=hash, counter=counter)


@transaction.atomic
def withdraw(user: VpnUser, kind: str) -> None:
    """Leave the user without an enrolment of this kind. What was remembered of passes is void."""
    lock(user)
    Enrolment.objects.filter(user=user, kind=kind).delete()
    forget(user)
