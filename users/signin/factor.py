"""What every factor shares whose user signs in at a provider, in a browser."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import ClassVar

from django import forms

from core.clock import moment
from core.http import NoAnswer
from core.rate_limits import count_of
from users.factors.base import AskedFactor, Case, Contribution, Denied, Factor, Outcome, Passed, Pending, Unavailable
from users.factors.providers import ProviderConfig
from users.models import Enrolment, SignIn, VpnUser

from . import grants, sign_ins
from .models import SignInGrant
from .outcomes import NotSignedIn, SignedIn

# What a provider said so many seconds ago is not asked again by a connect.
FRESH = 60
# Begun in ten minutes, for one user.
MOST = 20


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
    not_enrolled: ClassVar[str] = "Your account has no e-mail address to sign in with. Ask your administrator."
    sentences: ClassVar[Mapping[str, str]] = {
        "not_enrolled": "The user has no e-mail address on their page, so no account could be recognised as theirs.",
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
        "revoked": "The provider was asked again and no longer stands by the sign-in: the account was disabled there, "
        "or its sessions were ended. They have to sign in anew.",
        "silent": "The provider could not be asked about the sign-in for longer than its page allows.",
        "too_many": "Too many sign-ins were begun for this user within ten minutes.",
    }

    def enrolled(self, user: VpnUser, enrolment: Enrolment | None) -> bool:
        return enrolment is not None or bool(user.email)

    @abstractmethod
    def get_ready(self, config: ProviderConfig) -> None:
        """Have at hand what is needed to send somebody there. Raise ``NoAnswer``."""

    @abstractmethod
    def address_of(self, config: ProviderConfig, state: str) -> str:
        """Where the browser goes to sign in. Raise ``NoAnswer``."""

    @abstractmethod
    def finish(self, config: ProviderConfig, sign_in: SignIn, sent: Mapping[str, str], state: str) -> SignedIn:
        """Judge what the browser brought back. Raise ``NotSignedIn``, and ``NoAnswer`` where nobody can judge."""

    def every(self, config: ProviderConfig) -> timedelta:
        """How often it is asked about who is connected; zero: never."""
        return timedelta(0)

    def can_ask(self, config: ProviderConfig, grant: SignInGrant) -> bool:
        """Whether ``grant`` has what is needed to ask."""
        return False

    def renew(self, config: ProviderConfig, grant: SignInGrant, store: Callable[[str], None]) -> SignedIn | None:
        """Ask about whom ``grant`` is, and give ``store`` the next refresh token. None: they are fine, and the provider
        says nothing more. Raise ``NotSignedIn``, ``NoAnswer``."""
        raise NoAnswer("This provider cannot be asked again.")

    def too_long_silent(self, config: ProviderConfig, grant: SignInGrant, now: float) -> bool:
        """Whether the provider has not been heard for longer than the administrator allows."""
        return False

    def ask_again(self, config: ProviderConfig, grant: SignInGrant, now: float) -> None:
        """About whom ``grant`` is, for whoever has claimed it. Raise ``NotSignedIn``; ``NoAnswer`` ends nobody."""
        try:
            grants.ask(grant, lambda store: self.renew(config, grant, store), self.every(config), now)
        except NoAnswer:
            if self.too_long_silent(config, grant, now):
                raise NotSignedIn("silent") from None
            raise

    def stands(self, case: Case) -> Outcome:
        config = case.asked.provider
        grant = grants.of(case.user, config.public_id) if config else None
        if config is None or grant is None or not self.every(config) or not self.can_ask(config, grant):
            return Passed()
        try:
            if grant.agreed <= moment(case.now - FRESH) and grants.claim(grant, case.now):
                self.ask_again(config, grant, case.now)
        except NotSignedIn as error:
            grants.end(grant)
            return Denied(error.code, guess=False)
        except NoAnswer:
            return Passed("not_asked_again")
        return in_groups(grant.groups, case.asked)

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
    return in_groups(sign_in.groups, asked) if sign_in.outcome == sign_ins.OK else Denied(sign_in.outcome)


def in_groups(groups: Sequence[str] | None, asked: AskedFactor) -> Outcome:
    """Whether one of ``groups`` is among those that the server names."""
    wanted = {line.strip() for line in str(asked.settings.get("groups") or "").splitlines() if line.strip()}
    if not wanted:
        return Passed()
    if groups is None:
        return Denied("groups_unknown")
    return Passed() if wanted & set(groups) else Denied("group")
