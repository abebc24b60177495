"""YubiKey OTP: 44 letters that a key types when it is touched, validated by Yubico's servers or one's own."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import ClassVar

from core.crypto import keyed_hash
from users.factors.base import (
    NOT_CONFIGURED,
    AskedFactor,
    Case,
    Contribution,
    Denied,
    Factor,
    Outcome,
    Passed,
    TypedSecret,
    Unavailable,
)
from users.factors.panels import FactorPanel, NotDone, OwnPanel
from users.factors.providers import ProviderConfig, ProviderForm
from users.models import Enrolment

from .enrolment import KIND, LENGTH, OTP, key_id, keys_of
from .form import YubiKeyService
from .own import OWN_PANEL
from .panel import PANEL, WHY_NOT
from .service import client_of
from .validation import Said, validate

USED = Denied("used", advice="Touch the key again.")
# Of no key: a server that knows us says so, and signs it.
NOBODYS = "c" * LENGTH


class YubiKey(Factor):
    kind: ClassVar[str] = KIND
    label: ClassVar[str] = "YubiKey"
    typed: ClassVar[TypedSecret | None] = TypedSecret(OTP, LENGTH)
    provider_form: ClassVar[type[ProviderForm] | None] = YubiKeyService
    can_be_tried: ClassVar[bool] = True
    panel: ClassVar[FactorPanel | None] = PANEL
    own_panel: ClassVar[OwnPanel | None] = OWN_PANEL
    not_enrolled: ClassVar[str] = "No YubiKey is set up for this account. Add yours on the page of your profile link."
    sentences: ClassVar[Mapping[str, str]] = {
        "wrong": "The service that validates YubiKeys says that this was none of theirs, or the client sent none.",
        "not_theirs": "A YubiKey was touched that is none of this user's. Is it on their page?",
        "used": "What the YubiKey typed was used already. Its user was told to touch it again.",
        "refused": "The service that validates YubiKeys does not take us for a client of its. Look at the client ID "
        "and the secret key.",
        "not_believed": "The answer of the service that validates YubiKeys had a wrong signature, or was about "
        "something else. Look at the secret key; if it is right, somebody in the path answers in its place.",
        "unavailable": "No server that validates YubiKeys gave an answer.",
    }

    def check(self, case: Case, secret: str) -> Outcome:
        # Validating uses it up, so here is only looked whose it is.
        otp = secret.lower()
        if not OTP.fullmatch(otp):
            return Denied()
        return Passed() if key_id(otp) in keys_of(case.enrolment) else Denied("not_theirs")

    def claim(self, case: Case, secret: str) -> Outcome:
        otp = secret.lower()
        checked = self.check(case, otp)
        if case.enrolment is None or not isinstance(checked, Passed):
            return checked
        if case.asked.provider is None:
            return NOT_CONFIGURED
        # The same one for the same attempt passes again, which to the service would be a used one.
        mine = keyed_hash(KIND, case.attempt_hash, otp)
        if self._passed_for(mine, case.enrolment):
            return Passed()
        said = validate(client_of(case.asked.provider), otp)
        if said is Said.GOOD:
            # Who was enrolled anew meanwhile has another row, and perhaps not this key any more.
            still = Enrolment.objects.filter(pk=case.enrolment.pk).update(last_attempt=mine)
            return Passed() if still else Denied("not_theirs")
        if said is Said.USED:
            # A second request of this attempt may have been faster.
            return Passed() if self._passed_for(mine, case.enrolment) else USED
        if said is Said.WRONG:
            return Denied()
        return Unavailable() if said is Said.SILENT else Unavailable(said.value, skippable=False)

    def try_out(self, provider: ProviderConfig) -> str:
        said = validate(client_of(provider), NOBODYS)
        if said in (Said.WRONG, Said.USED):
            return "A server answers, and its signature is right."
        raise NotDone(WHY_NOT.get(said, "A server says of what no key types that it is good."))

    def contribution(self, asked: AskedFactor) -> Contribution:
        return Contribution(mode="yubikey")

    @staticmethod
    def _passed_for(mine: str, enrolment: Enrolment) -> bool:
        last = Enrolment.objects.filter(pk=enrolment.pk).values_list("last_attempt", flat=True).first()
        return hmac.compare_digest(last or "", mine)
