"""What a user types who has a PIN and an authenticator: as their client sends it, and as a thief would."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyotp

from core import clock
from core.totp import STEP
from users.factors.pin.enrolment import set_pin
from users.factors.totp.enrolment import set_up_totp
from users.models import FactorOverride, VpnUser

PIN = "80364175"


@dataclass
class Passcodes:
    """By the clock of the installation, which is that of the user's phone as well. No code is sent for two attempts:
    each is good for one."""

    totp: pyotp.TOTP
    last_passed: str = ""
    _passed: dict[int, str] = field(default_factory=dict)  # by device, what passed and is remembered there
    _sent: tuple[int, str] = (0, "")  # time step and key of the last attempt

    def for_attempt(self, device: int, key: str) -> str | None:
        """What to send with ``key`` from ``device``; None until there is another code."""
        if device in self._passed:
            return self._passed[device]
        step = int(clock.now()) // STEP
        if step < self._sent[0] or (step == self._sent[0] and key != self._sent[1]):
            return None
        self._sent = step, key
        return PIN + self.totp.generate_otp(step)

    def passed(self, device: int, password: str) -> None:
        self._passed[device] = self.last_passed = password

    def refused(self, device: int) -> None:
        """Whatever the reason: it is not sent again, and is remembered no longer."""
        self._passed.pop(device, None)
        self._sent = self._sent[0], ""


def enrol(user: VpnUser) -> Passcodes:
    """Asked for on every server."""
    set_pin(user, PIN)
    for kind in ("pin", "totp"):
        FactorOverride.objects.create(user=user, kind=kind, state=FactorOverride.State.REQUIRED)
    return Passcodes(pyotp.TOTP(set_up_totp(user).secret.reveal()))


def waits_for_a_code(name: str) -> bool:
    """Whether the clock was set back since a code of the user passed: until it is later again all codes are older."""
    found = VpnUser.objects.filter(name=name, enrolments__kind="totp").values_list("enrolments__counter", flat=True)
    return any(counter * STEP > clock.now() - STEP for counter in found)
