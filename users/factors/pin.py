"""PIN: a secret that the user remembers, hashed with Argon2."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.auth.hashers import check_password, make_password

from users.models import VpnUser

from .base import Attempt, Factor, Policy

SHORTEST, LONGEST = 4, 64


def hash_pin(pin: str) -> str:
    """Raise ``ValueError``, in words for the person who chose it, for a PIN that is too short or too long."""
    if not SHORTEST <= len(pin) <= LONGEST:
        raise ValueError(f"A PIN has {SHORTEST} to {LONGEST} characters.")
    if not pin.isprintable() or " " in pin:
        raise ValueError("A PIN has no spaces or control characters.")
    return make_password(pin, hasher="argon2")


class Pin(Factor):
    name: ClassVar[str] = "pin"

    def wanted(self, policy: Policy, user: VpnUser) -> bool:
        return policy.pin == "required" or (policy.pin == "optional" and bool(user.pin_hash))

    def missing(self, user: VpnUser) -> str | None:
        return None if user.pin_hash else "No PIN is set for this account. Ask your administrator to set one."

    def check(self, user: VpnUser, secret: str, attempt: Attempt, now: float) -> bool:
        return check_password(secret, user.pin_hash)
