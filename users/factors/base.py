"""The contract of a second factor.

Every factor that is wanted is judged, and all of them must pass. Judging has two phases: ``check`` changes nothing,
and only when every factor's check passed does ``claim`` use secrets up, so that a wrong PIN costs no code.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from django import forms

from core.crypto import keyed_hash
from users.models import Enrolment, VpnUser

from .again import Daily, Network
from .panels import FactorPanel, NotDone, OwnPanel
from .providers import ProviderConfig, ProviderForm

Mode = Literal["optional", "required"]
IfUnavailable = Literal["refuse", "skip"]
Override = Literal["required", "exempt"]


@dataclass(frozen=True, slots=True)
class AskedFactor:
    """A factor that a server asks for. ``mode`` "optional": only of users who are enrolled. ``if_unavailable``
    "skip": who cannot be judged because the provider is down passes without it. ``settings``: what the factor's own
    form says, as JSON has it. ``always``: also in trusted networks, since it was said of this user. ``provider_id``:
    the primary key of the provider that the server names, if it does; ``provider``: the one that is asked, for a factor
    that has one."""

    kind: str
    mode: Mode = "required"
    if_unavailable: IfUnavailable = "refuse"
    settings: Mapping[str, object] = field(default_factory=dict)
    provider_id: int | None = None
    always: bool = False
    provider: ProviderConfig | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What a server asks of those who connect to it. ``server`` is its public id, ``server_name`` for people; times are
    in seconds. ``trusted``: who comes from there passes without factors. ``ask_again``: until then at most a pass is
    remembered; ``ask_again_elsewhere``: only where it came from."""

    server: str
    organizations: frozenset[int]
    groups: frozenset[int]
    platforms: frozenset[str]
    factors: tuple[AskedFactor, ...]
    token_ttl: int
    grace: int
    trusted: tuple[Network, ...] = ()
    ask_again: Daily | None = None
    ask_again_elsewhere: bool = False
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one connect offers. ``address``: where its request came from, empty where that is not known.
    ``device_key``: hex SHA-256 of the public key (DER) that has signed the request, empty where none has. ``renews``:
    the WireGuard key of a connection that it continues, as the client says; ``counts_from``: when the session of that
    ends, in Unix seconds, where it is judged as if made then (0: now). ``repr`` shows no secret."""

    device_id: str
    device_name: str = field(repr=False)
    platform: str
    wg_public_key: str = field(repr=False)
    address: str
    password: str = field(repr=False)
    token: str = field(repr=False)
    device_hostname: str = field(default="", repr=False)
    client_version: str = ""
    device_key: str = field(default="", repr=False)
    renews: str = field(default="", repr=False)
    counts_from: float = 0.0


@dataclass(frozen=True, slots=True)
class Passed:
    """``code`` of each outcome is stable, for administrators, and unique within the factor. ``detail``: what is special
    of this case, for them."""

    code: str = "ok"
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Denied:
    """``code`` has its sentence for administrators in ``Factor.sentences``; ``detail``, too, is for them. The user gets
    one text for all denials: another would tell a guesser which secret was wrong. ``advice`` is for the user all the
    same, and given whatever the other secrets were: only what this secret alone says, and what helps nobody to guess.
    ``guess``: False where there was nothing to be guessed, so that it does not count as a wrong attempt.
    """

    code: str = "wrong"
    detail: str = ""
    advice: str = ""
    guess: bool = True


@dataclass(frozen=True, slots=True)
class Pending:
    """The factor asks something back. ``answer`` goes to the client, which sends the same attempt again afterwards."""

    answer: Mapping[str, Any]
    code: str = "pending"
    message: str = "Waiting for an answer."


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Nobody can judge now (provider down, not installed). ``message`` is for the user. ``skippable``: False where the
    provider was reached, and what it said is no reason to do without it."""

    code: str = "unavailable"
    message: str = "A second factor of this server cannot be checked at the moment. Ask your administrator."
    skippable: bool = True


# What a claim says where nobody told it which provider to ask: a check that passed is not a pass.
NOT_CONFIGURED = Unavailable("not_configured", skippable=False)

Outcome = Passed | Denied | Pending | Unavailable


@dataclass(frozen=True, slots=True)
class TypedSecret:
    """What a factor's part of the password looks like. ``form``: what all of its ``length`` characters must match (six
    digits), and up to ``spaces`` more where people may write some; None: any text, so it takes what the other factors
    leave. ``instead``: another form that the same secret may have (a recovery code)."""

    form: re.Pattern[str] | None = None
    length: int = 0
    spaces: int = 0
    instead: TypedSecret | None = None

    def lengths(self) -> list[int]:
        """How many characters it may have; of any text nobody can say."""
        mine = [*range(self.length, self.length + self.spaces + 1)]
        return mine + (self.instead.lengths() if self.instead else [])

    def fits(self, part: str) -> bool:
        if self.form is None or self.form.fullmatch(part):
            return True
        return self.instead is not None and self.instead.fits(part)


# The passcode of most apps and of small devices.
SIX_DIGITS = TypedSecret(re.compile(r"[0-9]{6}"), 6)


@dataclass(frozen=True, slots=True)
class Contribution:
    """What a factor adds to the profile. ``mode``: its word of ``password_mode``; ``push_ttl``: seconds, 0: no push."""

    mode: str = ""
    push_ttl: int = 0
    sso: bool = False
    device: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """Whom and what a factor judges. ``server``: the public id of the server they want; ``enrolment``: the user's for
    this factor, if they have one; ``now`` is Unix seconds."""

    user: VpnUser
    server: str
    enrolment: Enrolment | None
    asked: AskedFactor
    attempt: Attempt
    now: float
    server_name: str = ""

    @property
    def attempt_hash(self) -> str:
        """Names the attempt that a claim passes for, and may pass for again: one server, device and WireGuard key."""
        return keyed_hash("attempt", self.server, self.attempt.device_id, self.attempt.wg_public_key)


class Factor(ABC):
    """One kind of second factor.

    ``typed``: its part of the password; None: the user types nothing for it. ``asks_back``: its claim can be PENDING
    (push, sign-in page); these are claimed after all others. The client then sends the same attempt again, and all
    factors judge it anew: a claim must pass again for the attempt that it passed for (``Case.attempt_hash``), and for
    no other, whether or not that one led to a connection. ``can_be_unavailable``: False for what needs nobody else;
    "skip" then means nothing. ``always_judged``: nothing stands for it, neither what was passed before nor a trusted
    network; its user types nothing for it. ``asks_again``:
    its provider may say later that what was passed counts no longer, and is asked (``stands``) where something stands
    for it. ``knows_its_own``: False where ``check`` takes whatever has the right form, as only the provider
    can say whose it is. ``has_enrolments``: False where users need nothing of it here, since it
    knows them otherwise; everybody is asked for it then. ``not_enrolled``: what a user who is not enrolled can do about
    it, in words for them. ``sentences``: what each code of an outcome means and what to do about it, in words for
    administrators, beyond or in the place of those that all factors have. ``settings_form``: what a server can say of
    it: values that JSON has, each with an ``initial`` that holds where nothing is said; no secrets, as they are stored
    in the clear. ``waits``: judging may take longer than a thread that answers others may be held; so may all that ask
    a provider. ``provider_form``: what there is to say of the provider that it asks; None: it asks nobody.
    ``can_be_tried``: administrators can ask the provider something by ``try_out``. ``panel``: its part of the user's
    page in the admin; ``own_panel``: of the page that users have for themselves.
    """

    kind: ClassVar[str]
    label: ClassVar[str]
    typed: ClassVar[TypedSecret | None] = None
    has_enrolments: ClassVar[bool] = True
    not_enrolled: ClassVar[str]
    sentences: ClassVar[Mapping[str, str]] = {}
    settings_form: ClassVar[type[forms.Form]] = forms.Form
    provider_form: ClassVar[type[ProviderForm] | None] = None
    can_be_tried: ClassVar[bool] = False
    panel: ClassVar[FactorPanel | None] = None
    own_panel: ClassVar[OwnPanel | None] = None
    asks_back: ClassVar[bool] = False
    waits: ClassVar[bool] = False
    can_be_unavailable: ClassVar[bool] = True
    always_judged: ClassVar[bool] = False
    asks_again: ClassVar[bool] = False
    knows_its_own: ClassVar[bool] = True

    def missing(self) -> str:
        """What must be installed before it can judge anybody, in words for administrators; empty: nothing."""
        return ""

    def enrolled(self, user: VpnUser, enrolment: Enrolment | None) -> bool:
        """Whether the user has what this factor judges by. Other than a row of ours, where a provider knows it."""
        return enrolment is not None or not self.has_enrolments

    def stands(self, case: Case) -> Outcome:
        """Whether what was passed before, and is remembered, may still stand for it. Asked only of ``asks_again``."""
        return Passed()

    @abstractmethod
    def check(self, case: Case, secret: str) -> Outcome:
        """Whether ``secret`` (empty where nothing is typed) is right. Changes nothing and sends nothing that a
        provider counts: it may be called for several ways to cut one password. Never ``Pending``."""

    def claim(self, case: Case, secret: str) -> Outcome:
        """Use ``secret`` up for this attempt, or begin a push or a sign-in, after the checks of all factors passed."""
        return Passed()

    def holds_passcode(self, provider: ProviderConfig | None) -> bool:
        """Whether a passcode of its own is joined to what is typed for it, where it asks ``provider``."""
        return False

    def try_out(self, provider: ProviderConfig) -> str:
        """Ask the provider whether it would answer us; a sentence for administrators. Raise ``NotDone``."""
        raise NotDone(f"{self.label} has nothing to try.")

    def all_sentences(self) -> dict[str, str]:
        """By code, of this factor's decisions."""
        name = self.label
        return {
            "wrong": f"The {name} was wrong, or there was none in what the client sent.",
            "not_enrolled": f"The server asks for {name}, and the user has none yet. Set it up on the user's page.",
            "unavailable": f"Nobody could check the {name} at that moment.",
            "not_installed": f"The {name} is asked for, and not installed here.",
            "not_configured": f"The {name} is asked for, and nothing says which provider to ask: there is none, there "
            "are several of which the server names none, or what is stored of it cannot be used any more.",
            **self.sentences,
        }

    def sentence(self, code: str) -> str:
        return self.all_sentences().get(code, "")

    def fingerprint(self, enrolment: Enrolment | None) -> str:
        """Changes whenever the enrolment does; passes that are remembered for the old one are void then."""
        if enrolment is None:
            return ""
        return f"{enrolment.hash} {enrolment.secret.reveal() if enrolment.secret else ''}"

    def contribution(self, asked: AskedFactor) -> Contribution:
        return Contribution()
