"""Setting and removing a user's PIN. Every door (admin, command, API) goes through here."""

from __future__ import annotations

from django.contrib.auth.hashers import make_password

from users.factors import enrolments
from users.models import Enrolment, VpnUser

from .strength import why_common

KIND = "pin"
SHORTEST, LONGEST = 6, 64


def hash_pin(pin: str, shortest: int = SHORTEST) -> str:
    """Raise ``ValueError``, in words for the person who chose it, for a PIN that cannot be one. ``shortest``: what a
    server asks for."""
    shortest = max(shortest, SHORTEST)
    if not shortest <= len(pin) <= LONGEST:
        raise ValueError(f"A PIN has {shortest} to {LONGEST} characters.")
    if not pin.isprintable() or " " in pin:
        raise ValueError("A PIN has no spaces or control characters.")
    if why := why_common(pin):
        raise ValueError(f"This PIN is too easy to guess: it {why}. Choose another one.")
    return make_password(pin, hasher="argon2")


def set_pin(user: VpnUser, pin: str) -> None:
    """Raise ``ValueError`` as ``hash_pin`` does, and change nothing then. What was remembered of passes is void."""
    enrolments.enrol(user, KIND, hash=hash_pin(pin))


def set_pin_in_place_of(before: Enrolment | None, user: VpnUser, pin: str, shortest: int) -> None:
    """As ``set_pin``, by the user, who has proven ``before``. Raise ``ValueError`` and ``enrolments.Changed``."""
    enrolments.enrol_in_place_of(before, user, KIND, hash=hash_pin(pin, shortest))


def remove_pin(user: VpnUser) -> None:
    enrolments.withdraw(user, KIND)
