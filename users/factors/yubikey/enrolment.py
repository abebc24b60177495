"""Which YubiKeys a user has: the first twelve characters of what each types, which are always the same."""

from __future__ import annotations

import json
import re

from django.db import transaction

from core.crypto import Secret
from core.locking import lock
from users.factors import enrolments
from users.models import Enrolment, VpnUser

KIND = "yubikey"
LENGTH, ID_LENGTH = 44, 12
# Caps Lock, or a keyboard of a phone, may make capitals of it.
OTP = re.compile(rf"[cbdefghijklnrtuv]{{{LENGTH}}}", re.IGNORECASE | re.ASCII)
MOST_KEYS = 10


def key_id(otp: str) -> str:
    """Of a one-time password in lower case."""
    return otp[:ID_LENGTH]


def keys_of(enrolment: Enrolment | None) -> list[str]:
    """In the order in which they were added."""
    return list(json.loads(enrolment.secret.reveal())) if enrolment else []


@transaction.atomic
def add_key(user: VpnUser, key: str) -> None:
    """Raise ``ValueError`` where the user has it, or has too many."""
    lock(user)
    keys = keys_of(Enrolment.objects.filter(user=user, kind=KIND).first())
    if key in keys:
        raise ValueError("The user has this YubiKey already.")
    if len(keys) >= MOST_KEYS:
        raise ValueError(f"A user has at most {MOST_KEYS} YubiKeys.")
    enrolments.enrol(user, KIND, secret=Secret.of(json.dumps([*keys, key])))


@transaction.atomic
def remove_key(user: VpnUser, key: str) -> None:
    """Raise ``ValueError`` where the user has no such key."""
    lock(user)
    keys = keys_of(Enrolment.objects.filter(user=user, kind=KIND).first())
    if key not in keys:
        raise ValueError("The user has no such YubiKey.")
    keys.remove(key)
    if keys:
        enrolments.enrol(user, KIND, secret=Secret.of(json.dumps(keys)))
    else:
        enrolments.withdraw(user, KIND)
