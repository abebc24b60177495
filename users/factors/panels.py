"""The contract of a factor's part of the user's page: what it shows, and what its buttons do.

The page (``users.admin.factors``) asks for permission, writes the history and answers; a factor only says what it did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from users.models import Enrolment, VpnUser


class NotDone(Exception):
    """What the administrator asked for was not done. The argument says why, in words for them, without a secret."""


@dataclass(frozen=True, slots=True)
class ShownOnce:
    """A page that shows what nobody sees again: ``template`` finds ``title``, ``vpn_user``, ``user_page`` and what is
    in ``context``."""

    title: str
    template: str
    context: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Done:
    """``message`` goes into the user's history: no secret in it. Without ``shown`` the user's page says it."""

    message: str
    shown: ShownOnce | None = None


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
