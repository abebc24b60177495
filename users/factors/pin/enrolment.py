"""Setting and removing a user's PIN. Every door (admin, command, API) goes through here."""

from __future__ import annotations

from django.contrib.auth.hashers import make_password
from django.db import transaction

from users.factors.remembered import forget
from users.models import VpnUser

SHORTEST, LONGEST = 4, 64


def hash_pin(pin: str) -> str:
    """Raise ``ValueError``, in words for the person who chose it, for a PIN that cannot be one."""
    if not SHORTEST <= len(pin) <= LONGEST:
        raise ValueError(f"A PIN has {SHORTEST} to {LONGEST} characters.")
    if not pin.isprintable() or " " in pin:
        raise ValueError("A PIN has no spaces or control characters.")
    return make_password(pin, hasher="argon2")


def set_pin(user: VpnUser, pin: str) -> None:
    """Raise ``ValueError`` as ``hash_pin`` does, and change nothing then. What was remembered of passes is void."""
    _store(user, hash_pin(pin))


def remove_pin(user: VpnUser) -> None:
    _store(user, "")


@transaction.atomic
def _store(user: VpnUser, pin_hash: str) -> None:
    VpnUser.objects.filter(pk=user.pk).update(pin_hash=pin_hash)
    user.pin_hash = pin_hash
    forget(user)
