"""What every factor shares whose user signs in at a provider, in a browser."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from django import forms

from core.http import NoAnswer
from core.rate_limits import count_of
from users.factors.base import AskedFactor, Case, Contribution, Denied, Factor, Outcome, Passed, Pending, Unavailable
from users.factors.providers import ProviderConfig
from users.models import SignIn

from . import sign_ins

# Begun in ten minutes, for one user.
MOST = 20


class NotSignedIn(Exception):
    """The provider's answer lets nobody in. ``code`` is one of the factor's ``sentences``; ``detail`` is ours, for the
    log, and holds nothing that came from outside."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code} {detail}".strip())
        self.code = code


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Whoever it was is the user. ``groups``: None where the provider does not say."""

    groups: Sequence[str] | None


class SignInSettings(forms.Form):
    groups = forms.CharField(
        label="Only these groups",
        widget=forms.Textarea(attrs={"rows": 3}),
        initial="",
        required=False,
        help_text="One a line, as the provider names them: whoever is in any of them may connect. Empty: everybody.",
    )


class SignInFactor(Factor):
    asks_back: ClassVar[bool] = True
    settings_form: ClassVar[type[forms.Form]] = SignInSettings
    sentences: ClassVar[Mapping[str, str]] = {
        "sign_in": "The user was asked to sign in at the provider.",
        "other_account": "Somebody signed in with an account that is not this user's. It is known by the "
        "provider's own id once they have signed in, and before by the address on the user's page.",
        "address_unverified": "The account's address is the user's, but the provider does not say that it has "
        "verified it, so anybody could have written it there.",
        "group": "The account is in none of the groups that the server's page names.",
        "groups_unknown": "The server's page names groups, and the provider did not say in which ones the account is.",
        "claim": "The account lacks a claim that the provider's page asks for.",
        "declined": "The provider did not let them sign in, or they gave up.",
        "bad_answer": "The provider's answer could not be trusted: a wrong signature, issuer, audience, time or nonce.",
        "too_many": "Too many sign-ins were begun for this user within ten minutes.",
    }

    @abstractmethod
    def get_ready(self, config: ProviderConfig) -> None:
        """Have at hand what is needed to send somebody there. Raise ``NoAnswer``."""

    @abstractmethod
    def address_of(self, config: ProviderConfig, state: str) -> str:
        """Where the browser goes to sign in. Raise ``NoAnswer``."""

    @abstractmethod
    def finish(self, config: ProviderConfig, sign_in: SignIn, sent: Mapping[str, str], state: str) -> SignedIn:
        """Judge what the browser brought back. Raise ``NotSignedIn``, and ``NoAnswer`` where nobody can judge."""

    def check(self, case: Case, secret: str) -> Outcome:
        config = case.asked.provider
        if config is None or not sign_ins.our_address(config):
            return Unavailable("no_address")
        if sign_ins.of(case) is None:
            try:
                self.get_ready(config)
            except NoAnswer:
                return Unavailable()
        return Passed()

    def claim(self, case: Case, secret: str) -> Outcome:
        config, sign_in = case.asked.provider, sign_ins.of(case)
        if config is None:
            return Denied()
        if sign_in is None:
            if not count_of("sign_ins", case.user.public_id, MOST, 600):
                return Denied("too_many", advice="Wait some minutes.")
            sign_in = sign_ins.begin(case, config)
        if sign_in.outcome:
            return _judge(sign_in, case.asked)
        address = f"{sign_ins.our_address(config)}/sso/{sign_in.page}"
        return Pending({"sso_url": address, "sso_token": sign_ins.token_of(sign_in)}, "sign_in")

    def contribution(self, asked: AskedFactor) -> Contribution:
        return Contribution(sso=True)


def _judge(sign_in: SignIn, asked: AskedFactor) -> Outcome:
    if sign_in.outcome != sign_ins.OK:
        return Denied(sign_in.outcome)
    wanted = {line.strip() for line in str(asked.settings.get("groups") or "").splitlines() if line.strip()}
    if not wanted:
        return Passed()
    if sign_in.groups is None:
        return Denied("groups_unknown")
    return Passed() if wanted & set(sign_in.groups) else Denied("group")
