"""The contract of a factor's parts of two pages: the user's page in the admin (``FactorPanel``) and the page that users
have for themselves (``OwnPanel``). What it shows, and what its buttons do.

The pages (``users.admin.factors``; ``users.factors.own`` and what shows it) ask for permission, write the history and
answer; a factor only says what it did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from users.models import Enrolment, VpnUser


class NotDone(Exception):
    """What somebody asked for was not done. The argument says why, in words for them, without a secret."""


@dataclass(frozen=True, slots=True)
class ShownOnce:
    """A page that shows what nobody sees again. In the admin ``template`` finds ``title``, ``vpn_user``, ``user_page``
    and what is in ``context``; on a user's own page it is a part of one, and finds ``part`` and what is in
    ``context``. ``script``: the whole address of the one script that it may run there; empty: none."""

    title: str
    template: str
    context: Mapping[str, object] = field(repr=False)
    script: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """``message`` goes into the user's history: no secret in it. Without ``shown`` the user's page says it.
    ``detail``: what administrators should know of it beyond that."""

    message: str
    shown: ShownOnce | None = None
    detail: str = ""


# Of a user and the fields of the form that was sent; raises ``NotDone``.
Action = Callable[[VpnUser, Mapping[str, str]], Done]


def no_data(enrolment: Enrolment | None) -> Mapping[str, object]:
    return {}


@dataclass(frozen=True, slots=True)
class FactorPanel:
    """``template`` lies in the factor's folder ("pin/panel.html"). It finds ``part``: ``enrolment`` (None: not
    enrolled), ``data`` (what ``data`` here returns), ``may_change``, and for each action what its form sends:
    ``part.url`` and the hidden fields ``part.fields.NAME``."""

    template: str
    actions: Mapping[str, Action]
    data: Callable[[Enrolment | None], Mapping[str, object]] = no_data


class TryAgain(NotDone):
    """Not done, and asked again by ``shown``: what was typed was wrong, and what was shown before is still good."""

    def __init__(self, words: str, shown: ShownOnce) -> None:
        super().__init__(words)
        self.shown = shown


@dataclass(frozen=True, slots=True)
class OwnCase:
    """One request of a user's own page, for one factor. ``enrolment``: what they have of it (None: nothing).
    ``settings``: what each server that asks it of them says; ``required``: whether one lets nobody in without it.
    ``visit`` names the visit to the page; ``now`` is Unix seconds. ``origin``: where the page was opened, as browsers
    write it. ``providers``: by kind, the provider (its primary key) that a server names for it."""

    user: VpnUser
    enrolment: Enrolment | None
    settings: tuple[Mapping[str, object], ...]
    required: bool
    address: str
    visit: str
    now: float
    sent: Mapping[str, str] = field(default_factory=dict, repr=False)
    origin: str = ""
    providers: Mapping[str, int] = field(default_factory=dict)


# Raises ``NotDone``, ``TryAgain``.
OwnAction = Callable[[OwnCase], Done]


def nothing_of_its_own(case: OwnCase) -> Mapping[str, object]:
    return {}


@dataclass(frozen=True, slots=True)
class OwnPanel:
    """A factor's part of the page that users have for themselves; ``Done.message`` then is for them, and goes into the
    list of decisions. ``template`` lies in the factor's folder ("pin/own.html"). It finds ``part``: ``enrolment``,
    ``required``, ``data`` (what ``data`` here returns), ``proofs`` (what the user can be asked to prove, each with
    ``name``, ``label``) and for each action what its form sends: ``part.url`` and the hidden fields
    ``part.fields.NAME``.

    ``proof``: what users type to prove that they have it, in words for them; empty: they cannot here. ``is_proven``:
    whether they have shown it just now, for what is not typed; ``proof`` says then how to show it. An action asks
    for proofs itself (``users.factors.proofs``): of what the user has, before anything takes its place."""

    template: str
    actions: Mapping[str, OwnAction]
    data: Callable[[OwnCase], Mapping[str, object]] = nothing_of_its_own
    proof: str = ""
    is_proven: Callable[[OwnCase], bool] | None = None
