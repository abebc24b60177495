"""One-time passwords of administrators: whoever signs in with one chooses another."""

from __future__ import annotations

import secrets
import string

from django.contrib.auth.models import User
from django.db import transaction

from core.second_factor import audit, sessions
from users.services import known_to_others

LENGTH = 20


def fresh() -> str:
    """A password that nobody has had."""
    alphabet = string.ascii_letters + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(LENGTH))


@transaction.atomic
def give(user: User) -> str:
    """Give ``user`` a new one in place of the password they have, and return it. Their sessions end with that."""
    password = fresh()
    user.set_password(password)
    user.save(update_fields=["password"])
    known_to_others(user)
    sessions.end_all(user)
    audit.note(user, "Was given a one-time password by a command on the machine; their sessions ended.")
    return password
