"""TOTP (RFC 6238): six digits of an authenticator app, new every 30 seconds."""

from __future__ import annotations

import hmac
import re
from typing import ClassVar

import pyotp
from django.db.models import Q

from core.crypto import keyed_hash
from users.factors.base import AskedFactor, Attempt, Case, Contribution, Denied, Factor, Outcome, Passed, TypedSecret
from users.models import VpnUser

STEP = 30
# One step either way: phones' clocks drift, and typing takes a while.
DRIFT_STEPS = (0, -1, 1)


def attempt_hash(attempt: Attempt) -> str:
    return keyed_hash("totp attempt", attempt.device_id, attempt.wg_public_key)


def matching_step(user: VpnUser, code: str, now: float) -> int | None:
    """The time step whose code this is, None if it is of none near ``now``."""
    totp = pyotp.TOTP(user.totp_secret.reveal())
    current = int(now) // STEP
    matches = [step for drift in DRIFT_STEPS if hmac.compare_digest(totp.generate_otp(step := current + drift), code)]
    return matches[0] if matches else None


class Totp(Factor):
    kind: ClassVar[str] = "totp"
    label: ClassVar[str] = "TOTP"
    typed: ClassVar[TypedSecret | None] = TypedSecret(re.compile(r"[0-9]{6}"), 6)
    panel_template: ClassVar[str] = "totp/panel.html"
    can_be_unavailable: ClassVar[bool] = False
    not_enrolled: ClassVar[str] = "No authenticator is set up for this account. Ask your administrator to set one up."

    def enrolled(self, user: VpnUser) -> bool:
        return bool(user.totp_secret)

    def check(self, case: Case, secret: str) -> Outcome:
        user = case.user
        step = matching_step(user, secret, case.now)
        if step is None:
            return Denied()
        return (
            Passed() if step > user.totp_last_step or self._is_of_this_attempt(user, step, case.attempt) else Denied()
        )

    def claim(self, case: Case, secret: str) -> Outcome:
        step = matching_step(case.user, secret, case.now)
        if step is None:
            return Denied()
        mine = attempt_hash(case.attempt)
        # The conditional update is the claim: of two requests with one code only one finds the old step, unless
        # both are of the same attempt (the client offers it to the next host).
        free = Q(totp_last_step__lt=step) | Q(totp_last_step=step, totp_last_attempt=mine)
        mine_now = VpnUser.objects.filter(free, pk=case.user.pk).update(totp_last_step=step, totp_last_attempt=mine)
        return Passed() if mine_now else Denied()

    def fingerprint(self, user: VpnUser) -> str:
        return user.totp_secret.reveal()

    def contribution(self, asked: AskedFactor) -> Contribution:
        return Contribution(mode="otp")

    @staticmethod
    def _is_of_this_attempt(user: VpnUser, step: int, attempt: Attempt) -> bool:
        return step == user.totp_last_step and hmac.compare_digest(user.totp_last_attempt, attempt_hash(attempt))
