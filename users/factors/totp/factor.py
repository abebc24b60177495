"""TOTP (see ``core.totp``) as a factor of users. A recovery code stands for one, once."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from typing import ClassVar

import pyotp
from django.db.models import Q

from core.crypto import Secret
from core.totp import STEP, matching_step, plain_code
from users.factors.base import AskedFactor, Case, Contribution, Denied, Factor, Outcome, Passed, TypedSecret
from users.factors.panels import FactorPanel, OwnPanel
from users.models import Enrolment

from . import recovery
from .enrolment import KIND
from .own import OWN_PANEL
from .panel import PANEL

# Steps, either way, in which a code that is wrong now is looked for: administrators then hear of a clock that is off.
FAR_STEPS = 40
USED = Denied("used", advice="Wait for the next code.")
RECOVERY_USED = Denied("recovery_used", advice="A recovery code works once; take another one.")


def why_wrong(secret: Secret, code: str, now: float) -> Denied:
    """Whether it is the code of another time, some minutes from now: then the clock that it was made by is off."""
    totp, plain, current = pyotp.TOTP(secret.reveal()), plain_code(code), int(now) // STEP
    for steps in range(2, FAR_STEPS + 1):
        for drift, word in ((-steps, "behind"), (steps, "ahead")):
            if hmac.compare_digest(totp.generate_otp(current + drift), plain):
                seconds = steps * STEP
                return Denied("clock", f"some {seconds // 60} min {seconds % 60} s {word}")
    return Denied()


class Totp(Factor):
    kind: ClassVar[str] = KIND
    label: ClassVar[str] = "TOTP"
    typed: ClassVar[TypedSecret | None] = TypedSecret(
        re.compile(r"\s?\d{3}\s?\d{3}\s?"),
        6,
        spaces=3,
        instead=TypedSecret(recovery.FORM, recovery.LENGTH, spaces=2),
    )
    panel: ClassVar[FactorPanel | None] = PANEL
    own_panel: ClassVar[OwnPanel | None] = OWN_PANEL
    can_be_unavailable: ClassVar[bool] = False
    not_enrolled: ClassVar[str] = (
        "No authenticator is set up for this account. Set one up on the page of your profile link, or ask your "
        "administrator."
    )
    sentences: ClassVar[Mapping[str, str]] = {
        "wrong": "The code was wrong, or there was none in what the client sent. If all codes of this user are, is it "
        "the right entry of their app?",
        "used": "The code was used already, or is older than one that was. Its user was told to wait for the next one.",
        "recovery_code": "A recovery code stood for the authenticator.",
        "recovery_used": "The recovery code was used before; each works once. Make new ones on the user's page if they "
        "have none left.",
        "clock": "The code is that of another time: the clock of the user's phone is off, so have it set by itself; or "
        "it took minutes until the code was sent.",
    }

    def check(self, case: Case, secret: str) -> Outcome:
        enrolment = case.enrolment
        if enrolment is None:
            return Denied()
        if recovery.is_one(secret):
            code = recovery.find(enrolment, secret)
            if code is None:
                return Denied()
            return Passed() if recovery.is_free(code, case.attempt_hash) else RECOVERY_USED
        step = matching_step(enrolment.secret, secret, case.now)
        if step is None:
            return why_wrong(enrolment.secret, secret, case.now)
        unused = step > enrolment.counter or self._is_of_this_attempt(enrolment, step, case)
        return Passed() if unused else USED

    def claim(self, case: Case, secret: str) -> Outcome:
        enrolment = case.enrolment
        if enrolment is None:
            return Denied()
        if recovery.is_one(secret):
            return self._claim_recovery(enrolment, secret, case)
        step = matching_step(enrolment.secret, secret, case.now)
        if step is None:
            return Denied()
        mine = case.attempt_hash
        # The conditional update is the claim: of two requests with one code only one finds the old step, unless
        # both are of the same attempt (the client offers it to the next host). Who was enrolled anew has another row.
        free = Q(counter__lt=step) | Q(counter=step, last_attempt=mine)
        mine_now = Enrolment.objects.filter(free, pk=enrolment.pk).update(counter=step, last_attempt=mine)
        return Passed() if mine_now else USED

    @staticmethod
    def _claim_recovery(enrolment: Enrolment, secret: str, case: Case) -> Outcome:
        code = recovery.find(enrolment, secret)
        if code is None:
            return Denied()
        if not recovery.use(code, case.attempt_hash, case.now):
            return RECOVERY_USED
        return Passed("recovery_code", f"totp_recovery_code: {recovery.left(enrolment)} left")

    def contribution(self, asked: AskedFactor) -> Contribution:
        return Contribution(mode="otp")

    @staticmethod
    def _is_of_this_attempt(enrolment: Enrolment, step: int, case: Case) -> bool:
        return step == enrolment.counter and hmac.compare_digest(enrolment.last_attempt, case.attempt_hash)
