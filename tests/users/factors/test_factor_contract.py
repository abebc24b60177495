"""The contract of factors: every wanted one is judged, all must pass, and nothing of the answer is left over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from core.redis_store import redis_client
from tests.attempts import a_policy, an_attempt, enrol
from tests.factories import Company
from tests.protocol_client import NOW
from users.authorize import Allowed, Denied, Pending, Verdict, authorize
from users.factors import base, registry
from users.factors.base import AskedFactor, TypedSecret
from users.factors.cutting import MAX_WAYS, ways_apart
from users.factors.remembered import store
from users.factors.wanted import profile_flags
from users.models import RememberedPass, VpnUser, WrongAttempts

from .fake_factors import FAKES, TWO_TEXTS, Fake

TYPED = ("six", "also_six", "words")
RIGHT = {kind: fake.right for kind, fake in FAKES.items()}
WRONG = {"six": "314158", "also_six": "271829", "words": "123456shut", "untyped": ""}
# Three of the four, in every order.
THREES = list(permutations(FAKES, 3))

Register = Callable[..., dict[str, Fake]]


@pytest.fixture
def alice(company: Company) -> VpnUser:
    return company.hire("alice")[0]


@pytest.fixture
def register() -> Iterator[Register]:
    """Put fakes, in this order, in the place of the registry; new ones each time."""
    real = dict(registry.FACTORS)

    def put(*kinds: str) -> dict[str, Fake]:
        redis_client().flushall()
        registry.load.cache_clear()
        registry.FACTORS.clear()
        registry.FACTORS.update({kind: f"{Fake.__module__}.{(FAKES | TWO_TEXTS)[kind].__name__}" for kind in kinds})
        loaded = {kind: registry.load(kind) for kind in kinds}
        return {kind: factor for kind, factor in loaded.items() if isinstance(factor, Fake)}

    yield put
    registry.FACTORS.clear()
    registry.FACTORS.update(real)
    registry.load.cache_clear()


def judge(
    user: VpnUser, fakes: dict[str, Fake], password: str, if_unavailable: base.IfUnavailable = "refuse"
) -> Verdict:
    asked = tuple(AskedFactor(kind, if_unavailable=if_unavailable) for kind in fakes)
    WrongAttempts.objects.all().delete()  # how many were wrong before is not of interest here
    verdict = authorize(user, a_policy(user, factors=asked, token_ttl=60), an_attempt(password, "token-1"), NOW)
    if isinstance(verdict, Allowed):
        store(verdict.passes)  # as a connect does once the client is connected
    return verdict


def joinings(secrets: dict[str, str]) -> list[str]:
    return ["".join(order) for order in permutations(secret for kind, secret in secrets.items() if kind in TYPED)]


@pytest.mark.parametrize("kinds", THREES)
def test_of_three_factors_all_must_be_right_in_every_order_and_joining(
    alice: VpnUser, register: Register, kinds: tuple[str, ...]
) -> None:
    fakes = register(*kinds)
    secrets = {kind: RIGHT[kind] for kind in kinds}
    for password in joinings(secrets):
        assert isinstance(judge(alice, fakes, password), Allowed), password
        RememberedPass.objects.all().delete()
    for wrong in kinds:
        fakes = register(*kinds)
        if wrong == "untyped":
            fakes[wrong].says = base.Denied()
        for password in joinings(secrets | {wrong: WRONG[wrong]}):
            redis_client().flushall()
            verdict = judge(alice, fakes, password)
            assert isinstance(verdict, Denied), (wrong, password)
            assert (verdict.code, verdict.layer) == (f"{wrong}_wrong", wrong), password
            assert verdict.reason == "Second factor refused"
        assert not any(fake.claimed for fake in fakes.values()), "a wrong secret costs none of the others"
        assert not RememberedPass.objects.exists()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kinds=st.lists(st.sampled_from(sorted(FAKES)), unique=True, min_size=1),
    wrong=st.sets(st.sampled_from(sorted(FAKES))),
    answered=st.permutations(TYPED).flatmap(lambda order: st.integers(0, 3).map(lambda count: order[:count])),
    more=st.sampled_from(["", "", "", "7", "000000"]),
)
@example(kinds=["untyped"], wrong=set(), answered=[], more="7")
def test_allowed_exactly_if_every_wanted_factor_passed_and_nothing_is_left_over(
    alice: VpnUser, register: Register, kinds: list[str], wrong: set[str], answered: list[str], more: str
) -> None:
    fakes = register(*kinds)
    if "untyped" in fakes and "untyped" in wrong:
        fakes["untyped"].says = base.Denied()
    password = "".join((WRONG if kind in wrong else RIGHT)[kind] for kind in answered) + more
    verdict = judge(alice, fakes, password)
    typed = {kind for kind in kinds if kind in TYPED}
    # Whatever is left over, or wrong, is no part of what these secrets can be joined to.
    right = password in joinings({kind: RIGHT[kind] for kind in typed}) if typed else not password
    assert isinstance(verdict, Allowed) == (right and not ("untyped" in fakes and "untyped" in wrong))
    if isinstance(verdict, Allowed):
        assert {layer for layer, _ in verdict.layers[2:]} == set(kinds)
        assert all(len(fake.claimed) == 1 for fake in fakes.values())
    RememberedPass.objects.all().delete()


@pytest.mark.parametrize("kind", FAKES)
def test_what_a_down_factor_does_is_the_administrators_decision(alice: VpnUser, register: Register, kind: str) -> None:
    password = "".join(RIGHT[typed] for typed in TYPED)
    fakes = register(*FAKES)
    fakes[kind].says = base.Unavailable("timeout", "Ask later.")
    refused = judge(alice, fakes, password)
    assert isinstance(refused, Denied)
    assert (refused.code, refused.reason, refused.layer) == (f"{kind}_timeout", "Ask later.", kind)
    allowed = judge(alice, fakes, password, if_unavailable="skip")
    assert isinstance(allowed, Allowed)
    assert (kind, "skipped_timeout") in allowed.layers
    assert not RememberedPass.objects.exists(), "a pass that a factor was left out of stands for nothing later"


def test_a_down_factor_does_not_tell_that_the_other_secret_was_wrong(alice: VpnUser, register: Register) -> None:
    fakes = register("six", "untyped")
    fakes["untyped"].says = base.Unavailable("timeout", "Ask later.")
    verdict = judge(alice, fakes, WRONG["six"])
    assert isinstance(verdict, Denied)
    assert verdict.reason == "Second factor refused"


def test_a_down_factor_that_may_be_skipped_excuses_no_wrong_secret(alice: VpnUser, register: Register) -> None:
    fakes = register("six", "untyped")
    fakes["untyped"].says = base.Unavailable()
    assert isinstance(judge(alice, fakes, WRONG["six"], if_unavailable="skip"), Denied)


def test_what_needs_nobody_else_cannot_be_skipped(
    alice: VpnUser, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = register("six")
    fakes["six"].says = base.Unavailable()
    monkeypatch.setattr(FAKES["six"], "can_be_unavailable", False)
    assert isinstance(judge(alice, fakes, RIGHT["six"], if_unavailable="skip"), Denied)


def test_asking_back_begins_after_all_else_is_right_and_carries_its_answer(alice: VpnUser, register: Register) -> None:
    fakes = register("untyped", "six")
    fakes["untyped"].at_claim = base.Pending({"sso_url": "https://id.example/"}, "sign_in")
    assert isinstance(judge(alice, fakes, WRONG["six"]), Denied)
    assert not fakes["untyped"].claimed
    verdict = judge(alice, fakes, RIGHT["six"])
    assert isinstance(verdict, Pending)
    assert (verdict.answer, verdict.layers[-1]) == ({"sso_url": "https://id.example/"}, ("untyped", "sign_in"))
    assert not RememberedPass.objects.exists()


def test_a_secret_that_another_attempt_used_up_refuses(alice: VpnUser, register: Register) -> None:
    fakes = register("six", "words", "untyped")
    fakes["words"].at_claim = base.Denied("used")
    verdict = judge(alice, fakes, RIGHT["words"] + RIGHT["six"])
    assert isinstance(verdict, Denied)
    assert (verdict.code, verdict.reason) == ("words_used", "Second factor refused")
    assert not fakes["untyped"].claimed


def test_a_factor_that_is_not_installed_refuses_in_every_mode(alice: VpnUser) -> None:
    modes: tuple[base.Mode, ...] = ("optional", "required")
    for mode in modes:
        policy = a_policy(alice, factors=(AskedFactor("palm", mode, if_unavailable="skip"),))
        verdict = authorize(alice, policy, an_attempt("anything"), NOW)
        assert isinstance(verdict, Denied)
        assert (verdict.code, verdict.layers[-1]) == ("palm_not_installed", ("palm", "not_installed"))


def test_who_is_not_enrolled_is_told_so(alice: VpnUser, register: Register) -> None:
    fakes = register("six", "untyped")
    fakes["untyped"].is_enrolled = False
    verdict = judge(alice, fakes, RIGHT["six"])
    assert isinstance(verdict, Denied)
    assert (verdict.code, verdict.reason) == ("untyped_not_enrolled", "Not enrolled.")


def test_a_remembered_pass_stands_for_exactly_the_factors_that_passed(alice: VpnUser, register: Register) -> None:
    fakes = register("six", "untyped")
    assert isinstance(judge(alice, {"six": fakes["six"]}, RIGHT["six"]), Allowed)
    assert judge(alice, {"six": fakes["six"]}, "").layers[-1] == ("factor_token", "ok")
    assert judge(alice, fakes, "").layers[-1] == ("factors", "missing")


def test_the_ways_to_cut_are_bounded_however_many_factors_there_are() -> None:
    digits = FAKES["six"].typed
    assert digits is not None
    secrets = {f"six-{number}": digits for number in range(9)} | {"words": TypedSecret()}
    password = "".join(f"{number:06}" for number in range(9)) + "text"
    assert len(list(ways_apart(password, secrets))) <= MAX_WAYS


def test_of_two_texts_nobody_can_say_where_one_ends_so_none_fits() -> None:
    assert list(ways_apart("onetwo", {"one": TypedSecret(), "two": TypedSecret()})) == []


def test_two_texts_refuse_before_they_cost_an_attempt(alice: VpnUser, register: Register) -> None:
    fakes = register(*TWO_TEXTS)
    verdict = judge(alice, fakes, RIGHT["words"] * 2)
    assert isinstance(verdict, Denied)
    assert (verdict.code, verdict.layers[-1]) == ("factors_inseparable", ("factors", "inseparable"))
    assert not redis_client().keys("attempts:*")
    assert not any(fake.checked for fake in fakes.values())


def test_an_attempt_shows_no_secret() -> None:
    shown = repr(an_attempt("w0mbat", "token-1"))
    assert "device-1" in shown
    assert not any(secret in shown for secret in ("w0mbat", "token-1"))


def test_each_way_costs_one_attempt_in_all_and_no_secret_is_checked_twice(alice: VpnUser, register: Register) -> None:
    fakes = register("six", "also_six", "words")
    judge(alice, fakes, WRONG["words"] + WRONG["six"] + WRONG["also_six"])
    assert redis_client().get(f"attempts:user:{alice.public_id}") in (b"1", "1")
    assert all(len(fake.checked) == len(set(fake.checked)) for fake in fakes.values())


def test_the_profile_says_what_each_factor_contributes(alice: VpnUser) -> None:
    enrol(alice, "w0mbat", totp=True)
    assert profile_flags(alice, a_policy(alice, pin="required", totp=True), NOW).password_mode == "otp_pin"
