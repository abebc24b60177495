"""All wanted factors judge one attempt: whoever passes has passed every one of them, and no part of the password is
left over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from core import rate_limits
from users import verdicts
from users.models import VpnUser
from users.verdicts import Allowed, Layers, Verdict

from . import guesses
from .again import is_inside
from .base import Attempt, Case, Denied, Outcome, Passed, Pending, Policy, Unavailable
from .cutting import inseparable, ways_apart
from .remembered import is_remembered, passes_of
from .wanted import NOBODY_CAN_JUDGE, Wanted, wanted_factors

REFUSED = "Second factor refused"
INSEPARABLE = "This server asks you for two secrets that cannot be told apart. Ask your administrator."

# Of who comes from a trusted network.
WAIVED = Passed("trusted_network")

Outcomes = list[tuple[Wanted, Outcome]]
Distance = tuple[int, bool, bool]


def judge_factors(
    user: VpnUser, policy: Policy, attempt: Attempt, now: float, layers: Layers, *, may_wait: bool = True
) -> Verdict:
    """Raise ``RedisUnavailable`` where the attempt budgets cannot be read, and ``MustWait``."""
    try:
        wanted = wanted_factors(policy, user, now)
    except tuple(NOBODY_CAN_JUDGE) as error:
        code = NOBODY_CAN_JUDGE[type(error)]
        return verdicts.Denied((*layers, (str(error), code)), f"{error}_{code}", Unavailable().message)
    if not wanted:
        return Allowed((*layers, ("factors", "none_asked")))
    if is_inside(attempt.address, policy.trusted):
        wanted = [replace(each, waived=not (each.asked.always or each.factor.always_judged)) for each in wanted]
    judged = _judged(wanted)
    if not judged:
        return Allowed((*layers, ("factors", "trusted_network")))
    if is_remembered(user, policy, judged, attempt, "token", now):
        if not may_wait and any(each.factor.asks_again for each in judged):
            raise verdicts.MustWait
        return _judge_the_rest(user, policy, wanted, attempt, now, (*layers, ("factor_token", "ok")))
    for each in judged:
        if not each.enrolled(user):
            layers = (*layers, (each.kind, "not_enrolled"))
            return verdicts.Denied(layers, f"{each.kind}_not_enrolled", each.factor.not_enrolled)
    if inseparable((each.factor, each.asked.provider) for each in judged):
        # Refused before it costs an attempt: whatever the user types, nobody could say where one ends.
        return verdicts.Denied((*layers, ("factors", "inseparable")), "factors_inseparable", INSEPARABLE)
    if not may_wait and any(each.factor.waits or each.asked.provider for each in judged):
        raise verdicts.MustWait
    typed = [each for each in judged if each.factor.typed]
    if typed and not attempt.password:
        names = " and ".join(each.factor.label for each in typed)
        return verdicts.Denied((*layers, ("factors", "missing")), "factor_missing", f"This server asks for: {names}.")
    return judge_within_budget(user, policy, wanted, attempt, now, layers)


def _judged(wanted: Sequence[Wanted]) -> list[Wanted]:
    return [each for each in wanted if not each.waived]


def judge_within_budget(
    user: VpnUser, policy: Policy, wanted: Sequence[Wanted], attempt: Attempt, now: float, layers: Layers
) -> Verdict:
    """Whether ``attempt`` passes all of ``wanted``, counted as one attempt by whichever door it comes. Raise
    ``RedisUnavailable`` where the budgets cannot be read."""
    wrong_before = guesses.of(user)
    try:
        if left := guesses.pause_left(wrong_before, now):
            raise rate_limits.TooManyAttempts(left)
        reserved = rate_limits.reserve(user.public_id, attempt.address)
    except rate_limits.TooManyAttempts as error:
        layers = (*layers, ("budget", "used_up"))
        return verdicts.Denied(layers, "too_many_attempts", "Too many attempts. Wait a while.", error.retry_after)
    verdict = _judge(user, policy, wanted, attempt, now, layers)
    if not isinstance(verdict, verdicts.Denied):
        # Who is asked back has guessed nothing: all that they typed was right.
        reserved.give_back()
    if isinstance(verdict, Allowed):
        if wrong_before:
            guesses.forgive(wrong_before, verdict.passed)
    elif isinstance(verdict, verdicts.Denied) and verdict.guess:
        guesses.count_wrong(user, [each.kind for each in _judged(wanted)], now)
    return verdict


def _judge(
    user: VpnUser, policy: Policy, wanted: Sequence[Wanted], attempt: Attempt, now: float, layers: Layers
) -> Verdict:
    if is_remembered(user, policy, _judged(wanted), attempt, "grace", now):
        return _judge_the_rest(user, policy, wanted, attempt, now, (*layers, ("reconnect_grace", "ok")))
    return _try_all_ways(user, policy, wanted, attempt, now, layers)


def _judge_the_rest(
    user: VpnUser, policy: Policy, wanted: Sequence[Wanted], attempt: Attempt, now: float, layers: Layers
) -> Verdict:
    """Something stands for what was passed before: only what nothing stands for is judged, and nothing is remembered
    of it, since use must not extend it."""
    for each in _judged(wanted):
        case = Case(user, policy.server, each.enrolment, each.asked, attempt, now, policy.server_name)
        outcome = each.factor.stands(case) if each.factor.asks_again else Passed()
        if outcome != Passed():
            layers = (*layers, (each.kind, outcome.code))
        if isinstance(outcome, Denied):
            return verdicts.Denied(layers, f"{each.kind}_{outcome.code}", REFUSED, detail=outcome.detail)
    rest = [each for each in _judged(wanted) if each.factor.always_judged]
    if not rest:
        return Allowed(layers)
    return _try_all_ways(user, policy, rest, replace(attempt, password="", token=""), now, layers)


def _try_all_ways(
    user: VpnUser, policy: Policy, wanted: Sequence[Wanted], attempt: Attempt, now: float, layers: Layers
) -> Verdict:
    """Try every way to cut the password: one attempt in all."""
    cases = {
        each.kind: Case(user, policy.server, each.enrolment, each.asked, attempt, now, policy.server_name)
        for each in wanted
    }
    checked: dict[tuple[str, str], Outcome] = {}
    closest: Outcomes = []
    nearest: Distance | None = None
    advice = ""

    def check(each: Wanted, secret: str) -> Outcome:
        if each.waived:
            return WAIVED
        # Two ways often share a part, and a check may cost an Argon2.
        if (each.kind, secret) not in checked:
            checked[each.kind, secret] = each.factor.check(cases[each.kind], secret)
        return checked[each.kind, secret]

    def claim(each: Wanted, secret: str) -> Outcome:
        return WAIVED if each.waived else each.factor.claim(cases[each.kind], secret)

    for way in _ways(wanted, attempt.password):
        # All checks are made, also after one that failed: the time must not tell which secret was wrong.
        outcomes = _ask(wanted, way, check)
        advice = advice or _advice(outcomes)
        reached = not _stopping(outcomes)
        if reached:
            outcomes = _claim_all(wanted, way, claim, outcomes)
            stopping = _stopping(outcomes)
            if not stopping:
                return _allow(user, policy, outcomes, attempt, now, layers)
            each, outcome = stopping[0]
            if isinstance(outcome, Pending):
                return verdicts.Pending((*layers, (each.kind, outcome.code)), dict(outcome.answer))
            advice = advice or _advice(outcomes)
        distance = _distance(outcomes, reached)
        if nearest is None or distance < nearest:
            closest, nearest = outcomes, distance
    return _refuse(wanted, closest, layers, advice)


def _ways(wanted: Sequence[Wanted], password: str) -> Iterator[Mapping[str, str]]:
    """To cut the password: without what is waived, and with it."""
    typed = {each.kind: each.factor.typed for each in wanted if each.factor.typed}
    judged = {each.kind: typed[each.kind] for each in _judged(wanted) if each.kind in typed}
    if typed and not judged:
        yield {}  # nothing of it concerns anybody
        return
    yield from ways_apart(password, judged)
    if typed != judged:
        yield from ways_apart(password, typed)


def _ask(wanted: Sequence[Wanted], way: Mapping[str, str], question: Callable[[Wanted, str], Outcome]) -> Outcomes:
    return [(each, question(each, way.get(each.kind, ""))) for each in wanted]


def _claim_all(
    wanted: Sequence[Wanted], way: Mapping[str, str], claim: Callable[[Wanted, str], Outcome], checks: Outcomes
) -> Outcomes:
    """Claim until the first that does not pass: what comes after it is not used up, and no push is begun."""
    outcomes: Outcomes = []
    for each, checked in checks:
        skipped = isinstance(checked, Unavailable)
        outcomes.append((each, checked if skipped else claim(each, way.get(each.kind, ""))))
        if _stopping(outcomes):
            break
    return outcomes


def _stopping(outcomes: Outcomes) -> Outcomes:
    """Those because of which nobody may be let in."""
    return [
        (each, outcome) for each, outcome in outcomes if not (isinstance(outcome, Passed) or _skipped(each, outcome))
    ]


def _advice(outcomes: Outcomes) -> str:
    return next((said.advice for _, said in outcomes if isinstance(said, Denied) and said.advice), "")


def _distance(outcomes: Outcomes, reached: bool) -> Distance:
    """From passing. Of equals, the one with advice is nearer, so that administrators read what the user is told; then
    the one that looked right here (``reached``: claiming), and was wrong only for somebody else."""
    return len(_stopping(outcomes)), not _advice(outcomes), not reached


def _skipped(each: Wanted, outcome: Outcome) -> bool:
    """Whether the administrator said that this factor may be left out while its provider is down."""
    allowed = each.factor.can_be_unavailable and each.asked.if_unavailable == "skip"
    return allowed and isinstance(outcome, Unavailable) and outcome.skippable


def _allow(user: VpnUser, policy: Policy, outcomes: Outcomes, attempt: Attempt, now: float, layers: Layers) -> Allowed:
    skipped = [each for each, outcome in outcomes if not isinstance(outcome, Passed)]
    # Else the pass would stand for a factor that nobody judged.
    waived = [each for each, _ in outcomes if each.waived]
    passes = () if skipped or waived else passes_of(user, policy, [each for each, _ in outcomes], attempt, now)
    said = [(each.kind, f"skipped_{outcome.code}" if each in skipped else outcome.code) for each, outcome in outcomes]
    passed = frozenset(each.kind for each, _ in outcomes if each not in (*skipped, *waived))
    detail = next((said.detail for _, said in outcomes if isinstance(said, Passed) and said.detail), "")
    return Allowed((*layers, *said), passes, passed, detail)


def _refuse(wanted: Sequence[Wanted], closest: Outcomes, layers: Layers, advice: str) -> verdicts.Denied:
    """``closest``: what the factors said to the way of cutting in which most of them passed; empty if no way fits.
    ``advice``: of any way, so that it says nothing of which way it was, nor of the other secrets."""
    stopping = _stopping(closest)
    if not stopping:
        typed = [each for each in _judged(wanted) if each.factor.typed]
        if not typed:
            return verdicts.Denied((*layers, ("factors", "unclaimed")), "factor_unclaimed", REFUSED, guess=True)
        wrong = (typed[-1].kind, "wrong")
        return verdicts.Denied((*layers, wrong), f"{typed[-1].kind}_wrong", REFUSED, guess=True)
    rest = [pair for pair in closest if pair not in stopping]
    said = tuple((each.kind, outcome.code) for each, outcome in (*rest, *stopping))
    each, outcome = stopping[-1]
    # A text of its own only where nothing was wrong: else it would tell that the rest was right.
    all_unavailable = all(isinstance(outcome, Unavailable) for _, outcome in stopping)
    code = f"{each.kind}_{outcome.code}"
    if all_unavailable and isinstance(outcome, Unavailable):
        return verdicts.Denied((*layers, *said), code, outcome.message)
    guess = any(isinstance(outcome, Denied) and outcome.guess for _, outcome in stopping)
    reason = f"{REFUSED}. {advice}" if advice else REFUSED
    detail = outcome.detail if isinstance(outcome, Denied) else ""
    return verdicts.Denied((*layers, *said), code, reason, guess=guess, detail=detail)
