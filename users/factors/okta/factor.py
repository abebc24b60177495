"""Okta: a request on the user's phone (Okta Verify), or a code of an app, which Okta judges."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, ClassVar

from core.http import NoAnswer
from users.factors import pushes, remote
from users.factors.base import SIX_DIGITS, AskedFactor, Case, Contribution, Denied, Outcome, Passed, TypedSecret
from users.factors.providers import ProviderConfig, ProviderForm
from users.factors.remote import JudgedThere, Malformed, RefusesUs, RemoteFactor, username_of

from .api import Organization, ask, follow, segment
from .form import OktaOrganization, organization_of

# Seconds between two looks: Okta's limits are of the whole organization.
LOOK_EVERY = 3.0
SENTENCES = {
    **remote.SENTENCES,
    "wrong": "Okta did not accept the code.",
    "used": "The code was used already. Its user was told to wait for the next one.",
    "not_enrolled_there": "Okta does not know a user who signs in with this name.",
    "denied_there": "The user is not active in Okta: suspended, locked out, or not activated yet.",
    "no_device": "The user has nothing set up in Okta that this factor asks for.",
    "number": "Okta wants the user to choose a number that it shows, and there is no place to show it in a client. "
    "Ask for “Okta push with a number” instead, turn number matching off for this, or ask for codes.",
    "refused": "Okta does not take the API token, or it has too few rights.",
}
USED = Denied("used", advice="Wait for the next code.")
# Of Okta's results.
TYPED: Mapping[str, Outcome] = {"SUCCESS": Passed(), "PASSCODE_REPLAYED": USED}
PUSHED: Mapping[str, Outcome] = {"SUCCESS": Passed(), "REJECTED": Denied("rejected"), "TIMEOUT": Denied("expired")}
# Those that are documented and mean no.
OTHERS = {"FAILED", "TIME_WINDOW_EXCEEDED", "EXPIRED", "ERROR", "REJECTED", "TIMEOUT"}


class Okta(RemoteFactor):
    """What all have. ``okta_type``: which of Okta's factors it is."""

    service: ClassVar[str] = "Okta"
    provider_form: ClassVar[type[ProviderForm] | None] = OktaOrganization
    not_enrolled: ClassVar[str] = "You are not set up for Okta. Ask your administrator."
    sentences: ClassVar[Mapping[str, str]] = SENTENCES
    okta_type: ClassVar[str]

    def find(self, okta: Organization, name: str) -> str | Denied:
        """Where the user's first factor of the right type is verified. Raise ``NoAnswer``, ``RefusesUs``,
        ``Malformed``."""
        found = ask(okta, "GET", f"/users/{segment(name)}")
        if found.status == 404:
            return Denied("not_enrolled_there")
        user = found.object()
        # Okta also finds by a short form of the name, which may be another's.
        if found.status != 200 or not isinstance(user.get("profile"), dict) or not isinstance(user.get("id"), str):
            raise Malformed
        if str(user["profile"].get("login", "")).casefold() != name.casefold():
            return Denied("not_enrolled_there")
        if user.get("status") != "ACTIVE":
            return Denied("denied_there")
        path = f"/users/{segment(user['id'])}/factors"
        factor = self._factor(okta, path)
        return f"{path}/{segment(factor)}/verify" if factor else Denied("no_device")

    def _factor(self, okta: Organization, path: str) -> str:
        """The id of the user's first of the right type; empty where there is none."""
        answered = ask(okta, "GET", path)
        if answered.status != 200 or not isinstance(answered.said, list):
            raise Malformed
        for each in answered.said:
            if not isinstance(each, dict):
                raise Malformed
            wanted = each.get("factorType"), each.get("status")
            if wanted == (self.okta_type, "ACTIVE") and isinstance(each.get("id"), str):
                return str(each["id"])
        return ""

    def greet(self, provider: ProviderConfig) -> str:
        answered = ask(organization_of(provider), "GET", "/users?limit=1")
        if answered.status != 200 or not isinstance(answered.said, list):
            raise Malformed
        return "Okta answers, and takes the token."


class OktaThere(Okta, JudgedThere):
    """Within the connect."""

    def judged(self, case: Case, provider: ProviderConfig, secret: str) -> Outcome:
        okta = organization_of(provider, case.attempt.address)
        path = self.find(okta, username_of(provider, case.user))
        return path if isinstance(path, Denied) else self._verify(okta, case, path, secret)

    @abstractmethod
    def _verify(self, okta: Organization, case: Case, path: str, secret: str) -> Outcome:
        """What Okta says of the factor at ``path``. Raise ``NoAnswer``, ``RefusesUs``, ``Malformed``."""


class OktaPush(OktaThere):
    kind: ClassVar[str] = "okta"
    label: ClassVar[str] = "Okta push"
    okta_type: ClassVar[str] = "push"
    pause: Callable[[float], None] = staticmethod(time.sleep)
    clock: Callable[[], float] = staticmethod(time.monotonic)

    def _verify(self, okta: Organization, case: Case, path: str, secret: str) -> Outcome:
        with pushes.one_open(case.user, case.attempt_hash):
            until = self.clock() + pushes.OPEN
            answered = ask(okta, "POST", path)
            if answered.status != 201:
                raise Malformed
            said = answered.object()
            first = said.get("_links")
            while said.get("factorResult") == "WAITING":
                if _shows_number(said) or self.clock() > until:
                    with suppress(NoAnswer, RefusesUs, Malformed):
                        follow(okta, "DELETE", first, "cancel")
                    return Denied("number") if _shows_number(said) else Denied("expired")
                self.pause(LOOK_EVERY)
                polled = follow(okta, "GET", first, "poll")
                if polled.status != 200:
                    raise Malformed
                said = polled.object()
            return outcome_of(PUSHED, said)

    def contribution(self, asked: AskedFactor) -> Contribution:
        return Contribution(push_ttl=pushes.GONE)


class OktaPasscode(OktaThere):
    kind: ClassVar[str] = "okta_otp"
    label: ClassVar[str] = "Okta passcode"
    typed: ClassVar[TypedSecret | None] = SIX_DIGITS
    okta_type: ClassVar[str] = "token:software:totp"

    def _verify(self, okta: Organization, case: Case, path: str, secret: str) -> Outcome:
        answered = ask(okta, "POST", path, {"passCode": secret})
        if answered.status == 403 and answered.error() == "E0000068":
            return Denied()
        if answered.status != 200:
            raise Malformed
        return outcome_of(TYPED, answered.object(), Denied())

    def contribution(self, asked: AskedFactor) -> Contribution:
        return Contribution(mode="okta_otp")


def _shows_number(said: Mapping[str, Any]) -> bool:
    embedded = said.get("_embedded")
    return isinstance(embedded, dict) and "challenge" in embedded


def outcome_of(known: Mapping[str, Outcome], said: Mapping[str, Any], other: Outcome | None = None) -> Outcome:
    """Of Okta's result; ``other``: of ``OTHERS``. Raise ``Malformed``."""
    result = said.get("factorResult")
    if not isinstance(result, str):
        raise Malformed
    outcome = known.get(result) or (other if result in OTHERS else None)
    if outcome is None:
        raise Malformed
    return outcome
