"""Which YubiKeys a user has: the first twelve characters of what each types, which are always the same, and what it is
called."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from django.db import transaction

from core.crypto import Secret
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


def keys_of(enrolment: Enrolment | None) -> dict[str, str]:
    """What each is called, in the order in which they were added."""
    return dict(json.loads(enrolment.secret.reveal())) if enrolment else {}


def why_not(enrolment: Enrolment | None, key: str) -> str:
    """Why this key cannot be added to those, empty where it can."""
    keys = keys_of(enrolment)
    if key in keys:
        return "The user has this YubiKey already."
    return f"A user has at most {MOST_KEYS} YubiKeys." if len(keys) >= MOST_KEYS else ""


def add_key(user: VpnUser, key: str, name: str = "") -> None:
    """Raise ``ValueError`` where the user has it, or has too many."""
    add_key_in_place_of(_enrolment(user), user, key, name)


@transaction.atomic
def add_key_in_place_of(before: Enrolment | None, user: VpnUser, key: str, name: str) -> None:
    """Raise as ``add_key``, and ``Changed`` where the user has not ``before`` any more."""
    if why := why_not(before, key):
        raise ValueError(why)
    _put(before, user, {**keys_of(before), key: name or key})


def remove_key(user: VpnUser, key: str) -> None:
    """Raise ``ValueError`` where the user has no such key."""
    remove_key_in_place_of(_enrolment(user), user, key)


@transaction.atomic
def remove_key_in_place_of(before: Enrolment | None, user: VpnUser, key: str) -> None:
    """Raise as ``remove_key``, and ``Changed`` where the user has not ``before`` any more."""
    keys = keys_of(before)
    if key not in keys:
        raise ValueError("The user has no such YubiKey.")
    del keys[key]
    if keys:
        _put(before, user, keys)
    else:
        enrolments.withdraw(user, KIND)


def _put(before: Enrolment | None, user: VpnUser, keys: Mapping[str, str]) -> None:
    enrolments.enrol_in_place_of(before, user, KIND, secret=Secret.of(json.dumps(keys)))


def _enrolment(user: VpnUser) -> Enrolment | None:
    return Enrolment.objects.filter(user=user, kind=KIND).first()
