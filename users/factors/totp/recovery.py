"""Recovery codes: each stands once for the authenticator, for who has lost it.

Kept as HMACs under a key that comes from the enrolment's secret. That is encrypted, and encrypted anew when keys are
rotated, so the codes outlive a rotation; and a new authenticator has none of the old one's.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from django.db import transaction
from django.db.models import Q

from core.clock import moment
from core.locking import lock
from users.factors.enrolments import Changed
from users.models import Enrolment, RecoveryCode

COUNT = 10
HALF = 5
# None that are taken for each other; ten of them carry 49 bits.
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
# As people may write one: in capitals, with a space before or behind.
FORM = re.compile(rf"\s?[{LETTERS}{LETTERS.upper()}]{{{HALF}}}-[{LETTERS}{LETTERS.upper()}]{{{HALF}}}\s?")
LENGTH = 2 * HALF + 1


def new_code() -> str:
    letters = "".join(secrets.choice(LETTERS) for _ in range(2 * HALF))
    return f"{letters[:HALF]}-{letters[HALF:]}"


def is_one(written: str) -> bool:
    """Whether it looks like one."""
    return FORM.fullmatch(written) is not None


@transaction.atomic
def make(enrolment: Enrolment) -> list[str]:
    """New codes for ``enrolment``, in the place of those it had; they are not to be had again. Raise ``Changed`` where
    it is the user's no more."""
    lock(enrolment.user)
    if not Enrolment.objects.filter(pk=enrolment.pk).exists():
        raise Changed
    codes: set[str] = set()
    while len(codes) < COUNT:
        codes.add(new_code())
    RecoveryCode.objects.filter(enrolment=enrolment).delete()
    RecoveryCode.objects.bulk_create(
        RecoveryCode(enrolment=enrolment, digest=_digest(enrolment, code)) for code in codes
    )
    return sorted(codes)


def left(enrolment: Enrolment) -> int:
    """How many are not used yet."""
    return RecoveryCode.objects.filter(enrolment=enrolment, used=None).count()


def find(enrolment: Enrolment, written: str) -> RecoveryCode | None:
    """The code that somebody wrote, used or not."""
    digest, found = _digest(enrolment, written.strip().lower()), None
    for row in RecoveryCode.objects.filter(enrolment=enrolment):
        if hmac.compare_digest(row.digest, digest):
            found = row
    return found


def is_free(code: RecoveryCode, attempt: str) -> bool:
    """Whether it may pass for this attempt, or has passed for it before."""
    return code.used is None or hmac.compare_digest(code.used_by, attempt)


def use(code: RecoveryCode, attempt: str, now: float) -> bool:
    """Use it up for this attempt, which may do so again; False where another one did."""
    free = Q(used=None) | Q(used_by=attempt)
    mine = RecoveryCode.objects.filter(free, pk=code.pk).update(used=moment(now), used_by=attempt)
    return bool(mine)


def _digest(enrolment: Enrolment, code: str) -> str:
    key = hmac.digest(enrolment.secret.reveal().encode(), b"recovery codes", hashlib.sha256)
    return hmac.new(key, code.encode(), hashlib.sha256).hexdigest()
