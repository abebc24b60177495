"""TOTP (RFC 6238): six digits of an authenticator app, new every 30 seconds.

They are taken as apps show them and people write them: with a space in the middle, of whatever kind and beside them
too, and in the digits of any script (full-width ones, say, which a Japanese keyboard makes)."""

from __future__ import annotations

import hmac
import re
import unicodedata
from typing import ClassVar

import pyotp
from django.db.models import Q

from core.crypto import Secret
from users.factors.base import AskedFactor, Case, Contribution, Denied, Factor, Outcome, Passed, TypedSecret
from users.factors.panels import FactorPanel
from users.models import Enrolment

from .enrolment import KIND
from .panel import PANEL

STEP = 30
# One step either way: phones' clocks drift, and typing takes a while.
DRIFT_STEPS = (0, -1, 1)
USED = Denied("used", "The one-time code was used already, or is older than one that was.", "Wait for the next code.")


def plain_code(written: str) -> str:
    """ASCII digits, of a code as somebody wrote it."""
    return "".join(str(unicodedata.decimal(each, "?")) for each in written if not each.isspace())


def matching_step(secret: Secret, code: str, now: float) -> int | None:
    """The time step whose code this is, None if it is of none near ``now``."""
    totp, plain = pyotp.TOTP(secret.reveal()), plain_code(code)
    current = int(now) // STEP
    matches = [step for drift in DRIFT_STEPS if hmac.compare_digest(totp.generate_otp(step := current + drift), plain)]
    return matches[0] if matches else None


class Totp(Factor):
    kind: ClassVar[str] = KIND
    label: ClassVar[str] = "TOTP"
    typed: ClassVar[TypedSecret | None] = TypedSecret(re.compile(r"\s?\d{3}\s?\d{3}\s?"), 6, spaces=3)
    panel: ClassVar[FactorPanel | None] = PANEL
    can_be_unavailable: ClassVar[bool] = False
    not_enrolled: ClassVar[str] = "No authenticator is set up for this account. Ask your administrator to set one up."

    def check(self, case: Case, secret: str) -> Outcome:
        enrolment = case.enrolment
        step = matching_step(enrolment.secret, secret, case.now) if enrolment else None
        if enrolment is None or step is None:
            return Denied()
        unused = step > enrolment.counter or self._is_of_this_attempt(enrolment, step, case)
        return Passed() if unused else USED

    def claim(self, case: Case, secret: str) -> Outcome:
        enrolment = case.enrolment
        step = matching_step(enrolment.secret, secret, case.now) if enrolment else None
        if enrolment is None or step is None:
            return Denied()
        mine = case.attempt_hash
        # The conditional update is the claim: of two requests with one code only one finds the old step, unless
        # both are of the same attempt (the client offers it to the next host). Who was enrolled anew has another row.
        free = Q(counter__lt=step) | Q(counter=step, last_attempt=mine)
        mine_now = Enrolment.objects.filter(free, pk=enrolment.pk).update(counter=step, last_attempt=mine)
        return Passed() if mine_now else USED

    def contribution(self, asked: AskedFactor) -> Contribution:
        return Contribution(mode="otp")

    @staticmethod
    def _is_of_this_attempt(enrolment: Enrolment, step: int, case: Case) -> bool:
        return step == enrolment.counter and hmac.compare_digest(enrolment.last_attempt, case.attempt_hash)
