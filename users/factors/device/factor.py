"""Registered devices: a connect is signed by a key of the device (P-256, in a TPM where there is one), and somebody has
confirmed that key. The signature itself is verified with the envelope."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from django import forms

from users.factors.base import AskedFactor, Case, Contribution, Denied, Factor, Outcome, Passed, Pending
from users.factors.panels import FactorPanel

from .enrolment import KIND, key_of, register, registered
from .form import DeviceSettings
from .panel import PANEL

UNSIGNED = "This server takes registered devices only, and this one signs nothing: get your profile anew."


class RegisteredDevice(Factor):
    kind: ClassVar[str] = KIND
    label: ClassVar[str] = "Registered device"
    settings_form: ClassVar[type[forms.Form]] = DeviceSettings
    panel: ClassVar[FactorPanel | None] = PANEL
    # Claimed last: only who has passed everything else gets a place among those that wait for confirmation.
    asks_back: ClassVar[bool] = True
    can_be_unavailable: ClassVar[bool] = False
    always_judged: ClassVar[bool] = True
    has_enrolments: ClassVar[bool] = False  # who is unknown is told their registration key, which is how to enrol
    not_enrolled: ClassVar[str] = ""
    sentences: ClassVar[Mapping[str, str]] = {
        "unsigned": "The client did not sign with a device key. Its profile may be older than the server's wish for "
        "one, or the machine has no TPM that the client needs.",
        "waiting": "The device is unknown. It shows its user a registration key: compare that with the one on the "
        "user's page, and confirm it there.",
        "key_revoked": "This device was revoked. It needs a new key, and somebody who confirms that.",
        "other_device": "The key is that of a device with another id: a profile was copied together with its key.",
        "too_many": "The user has as many registered devices as the server allows. Revoke one first.",
    }

    def check(self, case: Case, secret: str) -> Outcome:
        if not case.attempt.device_key:
            return Denied("unsigned", advice=UNSIGNED, guess=False)
        key = key_of(case.user, case.attempt.device_key)
        if key is None or (key.confirmed is None and key.revoked is None):
            most = case.asked.settings.get("most", DeviceSettings.base_fields["most"].initial)
            full = not isinstance(most, int) or registered(case.user) >= most
            return Denied("too_many", guess=False) if full else Passed("unknown")
        if key.revoked is not None:
            return Denied("key_revoked", guess=False)
        # What is revoked is a device: one key for two would outlive the one of them.
        return Passed() if key.device_id == case.attempt.device_id else Denied("other_device", guess=False)

    def claim(self, case: Case, secret: str) -> Outcome:
        attempt = case.attempt
        key = register(
            case.user, attempt.device_key, attempt.device_id, attempt.device_name, attempt.platform, case.now
        )
        if key.confirmed is not None and key.revoked is None:
            return Passed()
        if key.revoked is not None:
            return Denied("key_revoked", guess=False)
        answer = {"allow": False, "reason": None, "configuration": None, "reg_key": key.reg_key}
        return Pending(answer, "waiting", "This device waits to be confirmed.")

    def contribution(self, asked: AskedFactor) -> Contribution:
        return Contribution(device=True)
