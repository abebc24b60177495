"""Okta: a request on the user's phone, on which they choose the number that our page shows them meanwhile."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar

from core.http import NoAnswer
from users.factors.base import Denied, Passed
from users.factors.providers import ProviderConfig
from users.factors.remote import Malformed, RefusesUs, username_of
from users.models import VpnUser
from users.signin.outcomes import NotSignedIn
from users.signin.phone import OnPhone, PhoneFactor

from .api import Organization, ask, follow
from .factor import PUSHED, SENTENCES, Okta, outcome_of
from .form import organization_of


class OktaNumber(PhoneFactor, Okta):
    kind: ClassVar[str] = "okta_number"
    label: ClassVar[str] = "Okta push with a number"
    okta_type: ClassVar[str] = "push"
    sentences: ClassVar[Mapping[str, str]] = {
        **PhoneFactor.sentences,
        **SENTENCES,
        "no_number": "Okta sent a request without a number to choose. Turn its number challenge on for Okta Verify.",
    }

    def begin(self, config: ProviderConfig, user: VpnUser, address: str) -> OnPhone:
        okta = organization_of(config, address)
        path = self.find(okta, username_of(config, user))
        if isinstance(path, Denied):
            raise NotSignedIn(path.code)
        answered = ask(okta, "POST", path, {"useNumberMatchingChallenge": True})
        said = answered.object()
        if answered.status != 201 or said.get("factorResult") != "WAITING":
            raise Malformed
        links = said.get("_links")
        if number := _number(said):
            return OnPhone(number, json.dumps(links))
        _take_back(okta, links)
        raise NotSignedIn("no_number")

    def look(self, config: ProviderConfig, on_phone: OnPhone) -> bool:
        answered = follow(organization_of(config), "GET", json.loads(on_phone.reference), "poll")
        said = answered.object()
        if answered.status != 200:
            raise Malformed
        if said.get("factorResult") == "WAITING":
            return False
        outcome = outcome_of(PUSHED, said)
        if not isinstance(outcome, Passed):
            raise NotSignedIn(outcome.code)
        return True


def _number(said: Mapping[str, Any]) -> str:
    """Empty where there is none."""
    embedded = said.get("_embedded")
    challenge = embedded.get("challenge") if isinstance(embedded, dict) else None
    number = challenge.get("correctAnswer") if isinstance(challenge, dict) else None
    shown = str(number) if isinstance(number, int | str) and not isinstance(number, bool) else ""
    return shown if shown.isascii() and shown.isdigit() and len(shown) <= 6 else ""


def _take_back(okta: Organization, links: object) -> None:
    with suppress(NoAnswer, RefusesUs, Malformed):
        follow(okta, "DELETE", links, "cancel")
