"""Recovery codes: ten for each administrator, each good once, shown once."""

from __future__ import annotations

import hashlib
import secrets

from django.contrib.auth.models import User
from django.db import transaction

from core.clock import moment
from core.locking import lock
from core.models import RecoveryCode

from . import audit

HOW_MANY = 10
# Without 0, 1, I and O, which people mix up: 32 letters, 5 bits each.
LETTERS = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
GROUPS, OF = 4, 4


def fresh() -> str:
    """``K7QF-2MXH-…``: 80 random bits."""
    return "-".join("".join(secrets.choice(LETTERS) for _ in range(OF)) for _ in range(GROUPS))


def plain(written: str) -> str:
    """A code as it was made, of what somebody wrote; empty if it cannot be one."""
    letters = "".join(each for each in written.upper() if each.isalnum())
    return letters if len(letters) == GROUPS * OF and set(letters) <= set(LETTERS) else ""


def hash_of(administrator: User, code: str) -> str:
    return hashlib.sha256(f"{administrator.pk}:{plain(code)}".encode()).hexdigest()


@transaction.atomic
def renew(administrator: User, now: float) -> list[str]:
    """New ones, in place of all of before."""
    lock(administrator)
    codes = [fresh() for _ in range(HOW_MANY)]
    RecoveryCode.objects.filter(administrator=administrator).delete()
    rows = [RecoveryCode(administrator=administrator, hash=hash_of(administrator, code)) for code in codes]
    RecoveryCode.objects.bulk_create(rows)
    audit.note(administrator, f"Made {HOW_MANY} recovery codes; those of before are void.")
    return codes


def left(administrator: User) -> int:
    return RecoveryCode.objects.filter(administrator=administrator, used=None).count()


def claim(administrator: User, code: str, now: float) -> bool:
    """Use it up. The conditional update is the claim: of two requests with one code, one finds it unused."""
    unused = RecoveryCode.objects.filter(administrator=administrator, hash=hash_of(administrator, code), used=None)
    return bool(plain(code)) and unused.update(used=moment(now)) == 1
