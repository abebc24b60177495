"""PIN: a secret that the user remembers, hashed with Argon2."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.auth.hashers import check_password, make_password

from users.models import VpnUser

from .base import AskedFactor, Case, Contribution, Denied, Factor, Outcome, Passed, TypedSecret

SHORTEST, LONGEST = 4, 64


def hash_pin(pin: str) -> str:
    """Raise ``ValueError``, in words for the person who chose it, for a PIN that is too short or too long."""
    if not SHORTEST <= len(pin) <= LONGEST:
        raise ValueError(f"A PIN has {SHORTEST} to {LONGEST} characters.")
    if not pin.isprintable() or " " in pin:
        raise ValueError("A PIN has no spaces or control characters.")
    return make_password(pin, hasher="argon2")


class Pin(Factor):
    kind: ClassVar[str] = "pin"
    label: ClassVar[str] = "PIN"
    typed: ClassVar[TypedSecret | None] = TypedSecret()
    can_be_unavailable: ClassVar[bool] = False
    not_enrolled: ClassVar[str] = "No PIN is set for this account. Ask your administrator to set one."

    def enrolled(self, user: VpnUser) -> bool:
        return bool(user.pin_hash)

    def check(self, case: Case, secret: str) -> Outcome:
        return Passed() if check_password(secret, case.user.pin_hash) else Denied()

    def fingerprint(self, user: VpnUser) -> str:
        return user.pin_hash

    def contribution(self, asked: AskedFactor) -> Contribution:
        return Contribution(mode="pin")
