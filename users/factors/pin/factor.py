"""PIN: a secret that the user remembers, judged against its Argon2 hash."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from django import forms
from django.contrib.auth.hashers import check_password

from users.factors.base import AskedFactor, Case, Contribution, Denied, Factor, Outcome, Passed, TypedSecret
from users.factors.panels import FactorPanel, OwnPanel

from .enrolment import KIND, SHORTEST
from .form import PinSettings
from .own import OWN_PANEL
from .panel import PANEL


class Pin(Factor):
    kind: ClassVar[str] = KIND
    label: ClassVar[str] = "PIN"
    typed: ClassVar[TypedSecret | None] = TypedSecret()
    settings_form: ClassVar[type[forms.Form]] = PinSettings
    panel: ClassVar[FactorPanel | None] = PANEL
    own_panel: ClassVar[OwnPanel | None] = OWN_PANEL
    can_be_unavailable: ClassVar[bool] = False
    not_enrolled: ClassVar[str] = (
        "No PIN is set for this account. Choose one on the page of your profile link, or ask your administrator."
    )

    sentences: ClassVar[Mapping[str, str]] = {
        "too_short": "The PIN was right, but is shorter than this server asks for. Have the user choose a longer one.",
    }

    def check(self, case: Case, secret: str) -> Outcome:
        if case.enrolment is None or not check_password(secret, case.enrolment.hash):
            return Denied()
        shortest = case.asked.settings.get("shortest", SHORTEST)
        # An administrator must be able to see why a right PIN is refused. The user is told as of any other.
        too_short = not isinstance(shortest, int) or len(secret) < shortest
        return Denied("too_short") if too_short else Passed()

    def contribution(self, asked: AskedFactor) -> Contribution:
        return Contribution(mode="pin")
