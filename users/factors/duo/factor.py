"""Duo: a request on the user's phone, or a passcode of the app or of a token, which Duo judges."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from django import forms

from users.factors import pushes, remote
from users.factors.base import SIX_DIGITS, AskedFactor, Case, Contribution, Denied, Outcome, Passed, TypedSecret
from users.factors.providers import ProviderConfig, ProviderForm
from users.factors.remote import JudgedThere, Malformed, username_of

from .api import ask, text_of
from .form import DuoApplication, DuoPushSettings, application_of

AUTH = "/auth/v2/auth"
# Of what is denied: the word of Duo's status, and our code.
DENIED = {"timeout": "expired", "fraud": "fraud", "locked_out": "locked_out"}
# Of preauth's results.
NOT_ASKED = {"enroll": "not_enrolled_there", "deny": "denied_there"}
SENTENCES = {
    **remote.SENTENCES,
    "wrong": "Duo did not accept it.",
    "bypass": "Duo lets this user in without a second factor: they are in bypass there, or their network or device is.",
    "not_enrolled_there": "Duo does not know this user, or they have set nothing up there. Look at their name in Duo, "
    "and at what the provider says that users are known by.",
    "denied_there": "Duo refuses this user: disabled, locked out, or by a policy there.",
    "no_device": "The user has no device in Duo that can be asked.",
    "fraud": "The user said on their phone that they did not ask for this. Somebody else has their profile: give "
    "them a new one.",
    "locked_out": "Duo has locked the user out.",
    "refused": "Duo does not take us for an application of its. Look at the keys of the provider, at the kind "
    "of the application (Auth API), and at this machine's clock.",
}


class Duo(JudgedThere):
    """What both have."""

    service: ClassVar[str] = "Duo"
    provider_form: ClassVar[type[ProviderForm] | None] = DuoApplication
    not_enrolled: ClassVar[str] = "You are not set up for Duo. Ask your administrator."
    sentences: ClassVar[Mapping[str, str]] = SENTENCES

    def greet(self, provider: ProviderConfig) -> str:
        ask(application_of(provider), "GET", "/auth/v2/check", {}, time.time())
        return "Duo answers, and knows the keys."


class DuoPush(Duo):
    """On the phone: in Duo Mobile, or by a call, as the server's page says."""

    kind: ClassVar[str] = "duo"
    label: ClassVar[str] = "Duo push"
    settings_form: ClassVar[type[forms.Form]] = DuoPushSettings

    def judged(self, case: Case, provider: ProviderConfig, secret: str) -> Outcome:
        about = _about(case, provider)
        said = ask(application_of(provider), "POST", "/auth/v2/preauth", about, case.now)
        result = text_of(said, "result")
        if result == "allow":
            return Passed("bypass")
        if result in NOT_ASKED:
            return Denied(NOT_ASKED[result])
        if result != "auth":
            raise Malformed
        able = {each for capabilities in _capabilities(said) for each in capabilities if isinstance(each, str)}
        way = next((way for way in _ways(case) if way in able), "")
        if not way:
            return Denied("no_device")
        shown = {"type": "VPN connection", "display_username": case.user.name} if way == "push" else {}
        wanted = {**about, **shown, "factor": way, "device": "auto"}
        with pushes.one_open(case.user, case.attempt_hash):
            # It answers when the user has, or when the request is over.
            return _verdict(ask(application_of(provider), "POST", AUTH, wanted, case.now, pushes.OPEN + 5))

    def contribution(self, asked: AskedFactor) -> Contribution:
        return Contribution(push_ttl=pushes.GONE)


class DuoPasscode(Duo):
    kind: ClassVar[str] = "duo_otp"
    label: ClassVar[str] = "Duo passcode"
    typed: ClassVar[TypedSecret | None] = SIX_DIGITS

    def judged(self, case: Case, provider: ProviderConfig, secret: str) -> Outcome:
        wanted = {**_about(case, provider), "factor": "passcode", "passcode": secret}
        return _verdict(ask(application_of(provider), "POST", AUTH, wanted, case.now), no="wrong")

    def contribution(self, asked: AskedFactor) -> Contribution:
        return Contribution(mode="duo_otp")


def _ways(case: Case) -> tuple[str, ...]:
    """In which a server has users asked, by Duo's words for factors and for what devices can do; the first that one of
    the user's devices can is taken."""
    by = str(case.asked.settings.get("by") or "push")
    return ("push", "phone") if by == "either" else (by,)


def _about(case: Case, provider: ProviderConfig) -> dict[str, str]:
    address = {"ipaddr": case.attempt.address} if case.attempt.address else {}
    return {"username": username_of(provider, case.user), **address}


def _capabilities(said: Mapping[str, Any]) -> list[list[Any]]:
    """Of each device of the user."""
    devices = said.get("devices")
    if not isinstance(devices, list) or not all(isinstance(each, dict) for each in devices):
        raise Malformed
    found = [each.get("capabilities", []) for each in devices]
    if not all(isinstance(each, list) for each in found):
        raise Malformed
    return found


def _verdict(said: Mapping[str, Any], no: str = "rejected") -> Outcome:
    """By ``result`` alone; ``status`` only says why, else it is ``no``."""
    result, status = text_of(said, "result"), text_of(said, "status")
    if result == "allow":
        return Passed("bypass" if status == "bypass" else "ok")
    if result != "deny":
        raise Malformed
    return Denied(DENIED.get(status, no))
