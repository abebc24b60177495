"""Passkeys (WebAuthn) of users, shown on our own sign-in page while a connect waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from webauthn.helpers import parse_authentication_credential_json, parse_client_data_json
from webauthn.helpers.exceptions import WebAuthnException

from core import clock, passkeys
from core.passkeys import NotAccepted
from users.factors.base import Case, Denied, Outcome, Passed, Unavailable
from users.factors.panels import FactorPanel, OwnPanel
from users.models import SignIn
from users.signin import sign_ins
from users.signin.here import HereFactor
from users.signin.outcomes import NotSignedIn

from .enrolment import KIND
from .own import OWN_PANEL
from .panel import PANEL
from .place import our_site
from .showing import show, usable


class Passkey(HereFactor):
    kind: ClassVar[str] = KIND
    label: ClassVar[str] = "passkey"
    panel: ClassVar[FactorPanel | None] = PANEL
    own_panel: ClassVar[OwnPanel | None] = OWN_PANEL
    page_template: ClassVar[str] = "passkey/sign_in.html"
    not_enrolled: ClassVar[str] = "You have no passkey yet. Add one on the page of your profile link."
    sentences: ClassVar[Mapping[str, str]] = {
        "sign_in": "The user was asked to show a passkey in their browser.",
        "wrong": "What the browser sent was not signed by the user's passkey, for this sign-in and this site.",
        "unknown": "A passkey was shown that is none of this user's, or was removed.",
        "unverified": "The passkey did not ask for a finger, a face or a PIN, so anybody may have held it.",
        "copied": "The passkey's counter did not grow, so there is a copy of it. It is locked: remove it on the user's "
        "page, and find out who has the other.",
        "locked": "A passkey was shown that is locked, because there may be a copy of it.",
        "none_usable": "The user's passkeys are locked, or bound to another name than this server has now.",
        "no_name": "Passkeys are bound to a host name, and API_URLS has only addresses.",
        "too_many": "Too many sign-ins were begun for this user within ten minutes.",
    }

    def our_origin(self) -> str:
        site = our_site()
        return site.origin if site else ""

    def check(self, case: Case, secret: str) -> Outcome:
        site = our_site()
        if site is None:
            return Unavailable("no_name", skippable=False)
        refused = (sign_in := sign_ins.of(case)) is not None and sign_in.outcome not in ("", sign_ins.OK)
        # One that was refused says more: its claim says why.
        if not refused and not usable(case.user, site).exists():
            advice = "Your passkeys cannot be used: ask your administrator to remove them, and add new ones."
            return Denied("none_usable", advice=advice, guess=False)
        return Passed()

    def question(self, sign_in: SignIn, challenge: str) -> str:
        site = our_site()
        there = list(usable(sign_in.user, site)) if site else []
        if site is None or not there:
            raise NotSignedIn("none_usable")
        asked, _ = passkeys.question(site, there, challenge.encode())
        return asked

    def challenge_in(self, answer: str) -> str:
        try:
            sent = parse_authentication_credential_json(answer).response.client_data_json
            return parse_client_data_json(sent).challenge.decode()
        except (WebAuthnException, UnicodeDecodeError):
            return ""

    def judge(self, sign_in: SignIn, challenge: str, answer: str) -> None:
        site = our_site()
        if site is None:
            raise NotSignedIn("none_usable")
        try:
            show(sign_in.user, site, answer, challenge.encode(), clock.now())
        except NotAccepted as error:
            raise NotSignedIn(error.code) from None
