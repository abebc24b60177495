"""PIN: a secret that the user remembers, judged against its Argon2 hash."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.auth.hashers import check_password

from users.factors.base import AskedFactor, Case, Contribution, Denied, Factor, Outcome, Passed, TypedSecret
from users.models import VpnUser

from .enrolment import LONGEST, SHORTEST


class Pin(Factor):
    kind: ClassVar[str] = "pin"
    label: ClassVar[str] = "PIN"
    typed: ClassVar[TypedSecret | None] = TypedSecret()
    panel_template: ClassVar[str] = "pin/panel.html"
    can_be_unavailable: ClassVar[bool] = False
    not_enrolled: ClassVar[str] = "No PIN is set for this account. Ask your administrator to set one."

    def enrolled(self, user: VpnUser) -> bool:
        return bool(user.pin_hash)

    def check(self, case: Case, secret: str) -> Outcome:
        return Passed() if check_password(secret, case.user.pin_hash) else Denied()

    def fingerprint(self, user: VpnUser) -> str:
        return user.pin_hash

    def contribution(self, asked: AskedFactor) -> Contribution:
        return Contribution(mode="pin")

    def panel_data(self) -> dict[str, object]:
        return {"shortest": SHORTEST, "longest": LONGEST}
