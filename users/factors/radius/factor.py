"""RADIUS: somebody else's server judges the password, and the code where it asks for one."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import ClassVar

from users.factors.asked_servers import name_of
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
from users.factors.once import once
from users.factors.panels import NotDone
from users.factors.providers import ProviderConfig, ProviderForm

from .client import Conversation, NoAnswer, Service
from .form import RadiusForm
from .packets import CALLING_STATION, NAS_IDENTIFIER, NAS_PORT_TYPE, STATE, USER_NAME, VIRTUAL, attribute, usable
from .servers import parse_servers


def service_of(provider: ProviderConfig) -> Service:
    said = provider.settings
    return Service(
        public_id=provider.public_id,
        servers=parse_servers(said["servers"]),
        secret=provider.secrets["shared_secret"],
        timeout=said["timeout"],
        tries=said["tries"],
        patience=said["patience"],
    )


def password_and_code(typed: str, provider: ProviderConfig) -> tuple[str, str] | None:
    """The code is empty where none is asked for, or goes with the password; None where one is missing. Most clients put
    the password first; what can be read both ways is read so."""
    way, digits = provider.settings["code"], provider.settings["code_digits"]
    if way == "none":
        return typed, ""
    code = f"[0-9]{{{digits}}}"
    match = re.fullmatch(f"(?s:(?P<password>.+)(?P<code>{code}))", typed) or re.fullmatch(
        f"(?s:(?P<code>{code})(?P<password>.+))", typed
    )
    if match is None:
        return None
    password, code = match["password"], match["code"]
    return (password + code, "") if way == "joined" else (password, code)


class Radius(Factor):
    kind: ClassVar[str] = "radius"
    label: ClassVar[str] = "RADIUS password"
    has_enrolments: ClassVar[bool] = False  # who is known there, only the server knows
    typed: ClassVar[TypedSecret | None] = TypedSecret()
    provider_form: ClassVar[type[ProviderForm] | None] = RadiusForm
    can_be_tried: ClassVar[bool] = True
    not_enrolled: ClassVar[str] = "Your account cannot be asked about by RADIUS. Ask your administrator."
    sentences: ClassVar[Mapping[str, str]] = {
        "wrong": "The RADIUS server refused the user's name and password, or the code where one is asked for.",
        "unavailable": "No RADIUS server answered in time. “Try it” on the provider's page says which of them do.",
        "bad_answer": "What answered was not made with our shared secret, or had no Message-Authenticator, and counts "
        "as no answer: the secrets differ, the server is too old or has to be told to sign, or somebody else answers.",
        "challenge": "The RADIUS server asked something back, which clients cannot show their users. If it asks for a "
        "code, say on the provider's page that codes are sent when it asks by a challenge.",
        "no_challenge": "The RADIUS server accepted the password and did not ask for the code, which its provider's "
        "page says it does. Nobody has looked at the code.",
        "no_email": "RADIUS is asked about users by their e-mail address, and this user has none.",
        "unusable": "RADIUS cannot carry what was typed: no password, one longer than 128 bytes, or no code at either "
        "end of it where one is asked for.",
    }

    def check(self, case: Case, secret: str) -> Outcome:
        """Nothing is sent: what is wrong there costs the user one of few attempts."""
        provider = case.asked.provider
        if provider is None:
            return NOT_CONFIGURED
        if not name_of(case.user, provider):
            return Denied("no_email")
        parts = password_and_code(secret, provider)
        return Passed() if parts is not None and usable(parts[0]) else Denied("unusable")

    def claim(self, case: Case, secret: str) -> Outcome:
        provider = case.asked.provider
        parts = provider and password_and_code(secret, provider)
        if provider is None or not parts:
            return NOT_CONFIGURED
        service = service_of(provider)
        return once(case, secret, partial(_ask, case, provider, service, *parts), service.patience)

    def try_out(self, provider: ProviderConfig) -> str:
        service = service_of(provider)
        nobody = {USER_NAME: f"nobody-{secrets.token_hex(4)}".encode(), **_about_us(provider)}
        wrong = []
        for server in service.servers:
            try:
                Conversation(replace(service, servers=[server])).ask(secrets.token_hex(8), nobody)
            except NoAnswer as error:
                said = "answers with another secret, or without a Message-Authenticator" if error.lied else "is silent"
                wrong.append(f"{server} {said}")
        if wrong:
            raise NotDone(f"{'; '.join(wrong)}.")
        said = ", ".join(map(str, service.servers))
        return f"Asked about a user that nobody is, each server gave a signed answer: {said}."

    def holds_passcode(self, provider: ProviderConfig | None) -> bool:
        return provider is not None and provider.settings["code"] != "none"

    def contribution(self, asked: AskedFactor) -> Contribution:
        return Contribution(mode="otp_password" if self.holds_passcode(asked.provider) else "password")


def _about_us(provider: ProviderConfig) -> dict[int, bytes]:
    return {NAS_IDENTIFIER: attribute(provider.settings["nas_identifier"]), NAS_PORT_TYPE: VIRTUAL}


def _ask(case: Case, provider: ProviderConfig, service: Service, password: str, code: str) -> Outcome:
    about = {
        USER_NAME: attribute(name_of(case.user, provider)),
        CALLING_STATION: attribute(case.attempt.address),
        **_about_us(provider),
    }
    conversation = Conversation(service)
    try:
        answer = conversation.ask(password, about)
        if code and answer.accepted:
            return Denied("no_challenge")
        if code and answer.challenged:
            answer = conversation.ask(code, about | ({STATE: answer.state[0]} if answer.state else {}))
    except NoAnswer as error:
        return Unavailable("bad_answer" if error.lied else "unavailable")
    if answer.challenged:
        return Denied("challenge", answer.message)
    return Passed() if answer.accepted else Denied("wrong", answer.message)
