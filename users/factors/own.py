"""The factors' parts of the page that users have for themselves: which are shown, and what their buttons do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from users.models import Enrolment, VpnUser

from .base import AskedFactor, Policy
from .panels import Done, NotDone, OwnCase
from .proofs import field_of, provable
from .registry import FACTORS, load
from .wanted import asked_of_user


class NoSuchAction(Exception):
    """No factor that the user is shown has this button."""


@dataclass(frozen=True, slots=True)
class Visit:
    """Who is at their page, and under which policies they may connect. ``key`` names the visit."""

    user: VpnUser
    policies: Sequence[Policy]
    address: str
    key: str
    now: float
    sent: Mapping[str, str] = field(default_factory=dict, repr=False)


def parts(visit: Visit, url: str) -> list[dict[str, Any]]:
    """What each factor's template finds as ``part``: of what is asked of the user, and of what they have. ``url``:
    where the forms go."""
    proofs = [
        {"kind": each.kind, "name": field_of(each.kind), "label": each.factor.own_panel.proof}
        for each in provable(visit.user)
        if each.factor.own_panel
    ]
    return [
        {
            "kind": kind,
            "template": panel.template,
            "enrolment": case.enrolment,
            "required": case.required,
            "data": panel.data(case),
            "proofs": proofs,
            "may_change": visit.user.organization.own_factors,
            "url": url,
            "fields": {action: {"factor": kind, "action": action} for action in panel.actions},
        }
        for kind, case in _cases(visit).items()
        if (panel := load(kind).own_panel)
    ]


def act(visit: Visit) -> Done:
    """Do what the form sent asks for. Raise ``NoSuchAction``, ``NotDone``, ``RedisUnavailable``."""
    kind = visit.sent.get("factor", "")
    case = _cases(visit).get(kind)
    panel = load(kind).own_panel if case else None
    action = panel.actions.get(visit.sent.get("action", "")) if panel else None
    if case is None or action is None:
        raise NoSuchAction
    if not visit.user.organization.own_factors:
        raise NotDone("Your administrator sets up second factors for everybody here. Ask them.")
    return action(case)


def _cases(visit: Visit) -> dict[str, OwnCase]:
    has = {each.kind: each for each in Enrolment.objects.filter(user=visit.user)}
    asked = asked_of_user(visit.policies, visit.user, visit.now)
    shown = [kind for kind in FACTORS if load(kind).own_panel and (kind in has or kind in asked)]
    return {kind: _case(visit, has.get(kind), asked.get(kind, [])) for kind in shown}


def _case(visit: Visit, enrolment: Enrolment | None, asked: Sequence[AskedFactor]) -> OwnCase:
    return OwnCase(
        user=visit.user,
        enrolment=enrolment,
        settings=tuple(each.settings for each in asked),
        required=any(each.mode == "required" for each in asked),
        address=visit.address,
        visit=visit.key,
        now=visit.now,
        sent=visit.sent,
    )
