"""Which answer a user was given."""

from __future__ import annotations

from users.factors import enrolments
from users.models import VpnUser

KIND = "riddle"


def give(user: VpnUser, answer: str) -> None:
    enrolments.enrol(user, KIND, hash=answer)
