"""Proofs on the user's own page: who changes what they have shows first that they have it.

They are judged as at a connect, by the same factors, within the same budgets: a page is no better place to guess.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import replace

from users.models import Enrolment, VpnUser
from users.verdicts import Allowed, Denied

from .base import AskedFactor, Attempt, Policy
from .judge import judge_within_budget
from .panels import NotDone, OwnCase
from .providers import NotConfigured
from .registry import FACTORS, load
from .wanted import Wanted, with_provider

# Where a connect has a server.
HERE = "own page"


class NotProven(NotDone):
    """A proof was wrong, or none is looked at for a while. ``code`` is that of the decision, for administrators."""

    def __init__(self, words: str, code: str) -> None:
        super().__init__(words)
        self.code = code


def provable(user: VpnUser) -> list[Wanted]:
    """What the user has and can show here, in the registry's order."""
    has = {each.kind: each for each in Enrolment.objects.filter(user=user)}
    with_proof = [factor for kind in FACTORS if (factor := load(kind)).own_panel and factor.own_panel.proof]
    found = [Wanted(factor, AskedFactor(factor.kind), has.get(factor.kind)) for factor in with_proof]
    return [each for each in found if each.enrolled(user)]


def field_of(kind: str) -> str:
    """The form's field in which a proof is typed."""
    return f"proof_{kind}"


def prove(case: OwnCase, only: Collection[str] | None = None) -> str:
    """Have the user prove all that they have, or of that what is in ``only``. What is special of it, for
    administrators. Raise ``NotDone`` where a proof is missing, ``NotProven`` where one is wrong, and
    ``RedisUnavailable``."""
    wanted = [each for each in provable(case.user) if only is None or each.kind in only]
    typing = [each for each in wanted if not _is_shown(each, case)]
    if not typing:
        return ""
    typed = {each.kind: case.sent.get(field_of(each.kind), "").strip() for each in typing}
    if missing := [each.factor.label for each in typing if not typed[each.kind]]:
        raise NotDone(f"Nothing was changed: this needs your {' and your '.join(missing)}.")
    attempt = _attempt(case, "".join(typed.values()))
    verdict = judge_within_budget(case.user, _POLICY, _with_providers(typing, case), attempt, case.now, ())
    if isinstance(verdict, Allowed):
        return verdict.detail
    if not isinstance(verdict, Denied):
        raise NotDone("Nothing was changed: this cannot be proven here.")
    wait = f" Try again in {-(-verdict.retry_after // 60)} min." if verdict.retry_after else ""
    raise NotProven(f"Nothing was changed. {verdict.reason.rstrip('.')}.{wait}", verdict.code)


def _is_shown(wanted: Wanted, case: OwnCase) -> bool:
    """Whether it is nothing that is typed, and was shown. Raise ``NotDone`` where it was not."""
    panel = wanted.factor.own_panel
    if panel is None or panel.is_proven is None:
        return False
    if not panel.is_proven(case):
        raise NotDone(f"Nothing was changed. {panel.proof}.")
    return True


def _with_providers(wanted: Collection[Wanted], case: OwnCase) -> list[Wanted]:
    """First those that ask one, which may refuse before a code is used up here. Raise ``NotDone``."""
    named = [replace(each, asked=replace(each.asked, provider_id=case.providers.get(each.kind))) for each in wanted]
    try:
        return sorted(map(with_provider, named), key=lambda each: each.asked.provider is None)
    except NotConfigured as error:
        label = load(str(error)).label
        raise NotDone(f"Nothing was changed: nobody can check your {label} now. Ask your administrator.") from None


_POLICY = Policy(HERE, frozenset(), frozenset(), frozenset(), (), token_ttl=0, grace=0)


def _attempt(case: OwnCase, password: str) -> Attempt:
    return Attempt(
        device_id=HERE,
        device_name=case.visit,
        platform="",
        # No two requests are one attempt: a code that was used for one is used.
        wg_public_key=secrets.token_hex(16),
        address=case.address,
        password=password,
        token="",
    )
