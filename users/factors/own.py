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
from .wanted import Wanted, asked_of_user


class NoSuchAction(Exception):
    """No factor that the user is shown has this button."""


@dataclass(frozen=True, slots=True)
class Visit:
    """Who is at their page, and under which policies they may connect. ``key`` names the visit; ``origin``: where the
    page was opened, as browsers write it."""

    user: VpnUser
    policies: Sequence[Policy]
    address: str
    key: str
    now: float
    sent: Mapping[str, str] = field(default_factory=dict, repr=False)
    origin: str = ""


def parts(visit: Visit, url: str) -> list[dict[str, Any]]:
    """What each factor's template finds as ``part``: of what is asked of the user, and of what they have. ``url``:
    where the forms go."""
    cases = _cases(visit)
    proofs = [_proof(each, cases) for each in provable(visit.user)]
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
        for kind, case in cases.items()
        if (panel := load(kind).own_panel)
    ]


def _proof(wanted: Wanted, cases: Mapping[str, OwnCase]) -> dict[str, Any]:
    """What the template finds of one proof: ``is_typed``, in the field ``name``; or else ``is_shown``."""
    panel = wanted.factor.own_panel
    shown = panel.is_proven if panel else None
    return {
        "kind": wanted.kind,
        "name": field_of(wanted.kind),
        "label": panel.proof if panel else "",
        "is_typed": shown is None,
        "is_shown": shown is not None and shown(cases[wanted.kind]),
    }


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
    named = {kind: each.provider_id for kind, all_ in asked.items() for each in all_ if each.provider_id is not None}
    return {kind: _case(visit, has.get(kind), asked.get(kind, []), named) for kind in shown}


def _case(
    visit: Visit, enrolment: Enrolment | None, asked: Sequence[AskedFactor], providers: Mapping[str, int]
) -> OwnCase:
    return OwnCase(
        user=visit.user,
        enrolment=enrolment,
        settings=tuple(each.settings for each in asked),
        required=any(each.mode == "required" for each in asked),
        address=visit.address,
        visit=visit.key,
        now=visit.now,
        sent=visit.sent,
        origin=visit.origin,
        providers=providers,
    )
