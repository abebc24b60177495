"""TOTP (RFC 6238): six digits of an authenticator app, new every 30 seconds."""

from __future__ import annotations

import hmac
import re
from typing import ClassVar

import pyotp
from django.db.models import Q

from core.crypto import Secret, keyed_hash
from users.models import VpnUser

from .base import Attempt, Factor, Policy

STEP = 30
# One step either way: phones' clocks drift, and typing takes a while.
DRIFT_STEPS = (0, -1, 1)


def new_secret() -> Secret:
    return Secret.of(pyotp.random_base32(length=32))


def provisioning_uri(user: VpnUser) -> str:
    """The ``otpauth://`` address that authenticator apps read from a QR code."""
    issuer = user.organization.name
    return pyotp.TOTP(user.totp_secret.reveal()).provisioning_uri(name=user.name, issuer_name=issuer)


def attempt_hash(attempt: Attempt) -> str:
    return keyed_hash("totp attempt", attempt.device_id, attempt.wg_public_key)


def matching_step(user: VpnUser, code: str, now: float) -> int | None:
    """The time step whose code this is, None if it is of none near ``now``."""
    totp = pyotp.TOTP(user.totp_secret.reveal())
    current = int(now) // STEP
    matches = [step for drift in DRIFT_STEPS if hmac.compare_digest(totp.generate_otp(step := current + drift), code)]
    return matches[0] if matches else None


class Totp(Factor):
    name: ClassVar[str] = "totp"
    passcode: ClassVar[re.Pattern[str] | None] = re.compile(r"[0-9]{6}")
    passcode_length: ClassVar[int] = 6

    def wanted(self, policy: Policy, user: VpnUser) -> bool:
        return policy.totp

    def missing(self, user: VpnUser) -> str | None:
        if user.totp_secret:
            return None
        return "No authenticator is set up for this account. Ask your administrator to set one up."

    def check(self, user: VpnUser, secret: str, attempt: Attempt, now: float) -> bool:
        step = matching_step(user, secret, now)
        if step is None:
            return False
        return step > user.totp_last_step or self._is_of_this_attempt(user, step, attempt)

    def claim(self, user: VpnUser, secret: str, attempt: Attempt, now: float) -> bool:
        step = matching_step(user, secret, now)
        if step is None:
            return False
        mine = attempt_hash(attempt)
        # The conditional update is the claim: of two requests with one code only one finds the old step, unless
        # both are of the same attempt (the client offers it to the next host).
        free = Q(totp_last_step__lt=step) | Q(totp_last_step=step, totp_last_attempt=mine)
        return bool(VpnUser.objects.filter(free, pk=user.pk).update(totp_last_step=step, totp_last_attempt=mine))

    @staticmethod
    def _is_of_this_attempt(user: VpnUser, step: int, attempt: Attempt) -> bool:
        return step == user.totp_last_step and hmac.compare_digest(user.totp_last_attempt, attempt_hash(attempt))
