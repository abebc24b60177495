"""TOTP (RFC 6238): six digits of an authenticator app, new every 30 seconds."""

from __future__ import annotations

import hmac
import re
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


def matching_step(secret: Secret, code: str, now: float) -> int | None:
    """The time step whose code this is, None if it is of none near ``now``."""
    totp = pyotp.TOTP(secret.reveal())
    current = int(now) // STEP
    matches = [step for drift in DRIFT_STEPS if hmac.compare_digest(totp.generate_otp(step := current + drift), code)]
    return matches[0] if matches else None


class Totp(Factor):
    kind: ClassVar[str] = KIND
    label: ClassVar[str] = "TOTP"
    typed: ClassVar[TypedSecret | None] = TypedSecret(re.compile(r"[0-9]{6}"), 6)
    panel: ClassVar[FactorPanel | None] = PANEL
    can_be_unavailable: ClassVar[bool] = False
    not_enrolled: ClassVar[str] = "No authenticator is set up for this account. Ask your administrator to set one up."

    def check(self, case: Case, secret: str) -> Outcome:
        enrolment = case.enrolment
        step = matching_step(enrolment.secret, secret, case.now) if enrolment else None
        if enrolment is None or step is None:
            return Denied()
        unused = step > enrolment.counter or self._is_of_this_attempt(enrolment, step, case)
        return Passed() if unused else Denied()

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
        return Passed() if mine_now else Denied()

    def contribution(self, asked: AskedFactor) -> Contribution:
        return Contribution(mode="otp")

    @staticmethod
    def _is_of_this_attempt(enrolment: Enrolment, step: int, case: Case) -> bool:
        return step == enrolment.counter and hmac.compare_digest(enrolment.last_attempt, case.attempt_hash)
