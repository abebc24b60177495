"""TOTP: a code works once, except within the attempt that it passed for; and a password is taken apart either way."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.crypto import Secret
from tests.attempts import TOTP_SECRET, a_policy, an_attempt, code_at, enrol, wrong_code
from tests.concurrency import together
from tests.factories import Company
from tests.protocol_client import NOW
from users.authorize import Allowed, Denied, authorize
from users.factors.base import TypedSecret
from users.factors.cutting import ways_apart
from users.factors.registry import load
from users.models import VpnUser


@pytest.fixture
def alice(company: Company) -> VpnUser:
    return enrol(company.hire("alice")[0], totp=True)


def try_code(user: VpnUser, password: str, now: float = NOW, server: str = "a1b2c3", **attempt: str) -> str:
    """ "allowed" or the refusal's code. The user is read anew, as each request does."""
    fresh = VpnUser.objects.select_related("organization").get(pk=user.pk)
    policy = a_policy(fresh, totp=True, pin="optional", server=server)
    return getattr(authorize(fresh, policy, an_attempt(password, **attempt), now), "code", "allowed")


def test_a_code_passes_again_within_its_attempt_only(alice: VpnUser) -> None:
    code = code_at(NOW)
    assert try_code(alice, code) == "allowed"
    assert try_code(alice, code) == "allowed"  # the client offers it to the next host
    assert try_code(alice, code, NOW + 29) == "allowed"
    assert try_code(alice, code, wg_public_key="key-2") == "totp_used"
    assert try_code(alice, code, device_id="device-2") == "totp_used"
    assert try_code(alice, code, server="d4e5f6") == "totp_used"


def test_another_device_that_saw_the_code_used_does_not_lock_the_first_out(alice: VpnUser) -> None:
    code = code_at(NOW)
    assert try_code(alice, code) == "allowed"
    assert try_code(alice, code, device_id="thief") == "totp_used"
    assert try_code(alice, code) == "allowed"


@pytest.mark.parametrize(
    ("drift", "result"),
    [(-90, "totp_clock"), (-60, "totp_clock"), (-30, "allowed"), (0, "allowed"), (30, "allowed"), (60, "totp_clock")],
)
def test_the_window_is_one_step_either_way(alice: VpnUser, drift: int, result: str) -> None:
    assert try_code(alice, code_at(NOW + drift)) == result


def test_after_a_later_code_an_earlier_one_is_used_up_too(alice: VpnUser) -> None:
    assert try_code(alice, code_at(NOW + 30)) == "allowed"
    assert try_code(alice, code_at(NOW), wg_public_key="key-2") == "totp_used"
    assert try_code(alice, code_at(NOW)) == "totp_used"  # the same attempt, but not the code that passed for it
    assert try_code(alice, code_at(NOW + 60), NOW + 60, wg_public_key="key-2") == "allowed"


def test_a_wrong_pin_does_not_use_the_code_up(alice: VpnUser) -> None:
    enrol(alice, "w0mbat", totp=True)
    code = code_at(NOW)
    assert try_code(alice, f"1357{code}", wg_public_key="key-1") == "pin_wrong"
    assert try_code(alice, f"w0mbat{code}", wg_public_key="key-2") == "allowed"


def test_a_wrong_code_changes_nothing(alice: VpnUser) -> None:
    assert try_code(alice, wrong_code()) == "totp_wrong"
    enrolment = alice.enrolments.get()
    assert (enrolment.counter, enrolment.last_attempt) == (0, "")


def test_a_use_outlives_redis(alice: VpnUser) -> None:
    from core.redis_store import redis_client

    assert try_code(alice, code_at(NOW)) == "allowed"
    redis_client().flushall()
    assert try_code(alice, code_at(NOW), wg_public_key="key-2") == "totp_used"


def test_of_ten_simultaneous_attempts_with_one_code_exactly_one_passes(alice: VpnUser) -> None:
    code = code_at(NOW)
    results = together([partial(try_code, alice, code, wg_public_key=f"key-{number}") for number in range(10)])
    assert sorted(map(str, results)) == ["allowed", *["totp_used"] * 9]


def test_ten_simultaneous_requests_of_one_attempt_all_pass(alice: VpnUser) -> None:
    results = together([partial(try_code, alice, code_at(NOW))] * 10)
    assert results == ["allowed"] * 10


def test_a_stale_copy_of_the_user_cannot_claim_a_used_code(alice: VpnUser) -> None:
    """Both requests read the user before either claimed: the conditional update decides, not what was read."""
    first = VpnUser.objects.select_related("organization").get(pk=alice.pk)
    second = VpnUser.objects.select_related("organization").get(pk=alice.pk)
    policy = a_policy(alice, totp=True)
    assert isinstance(authorize(first, policy, an_attempt(code_at(NOW)), NOW), Allowed)
    verdict = authorize(second, policy, an_attempt(code_at(NOW), wg_public_key="key-2"), NOW)
    assert isinstance(verdict, Denied)
    assert verdict.code == "totp_used"


SPACES = [" ", "\u00a0", "\u2009", "\u202f", "\u3000", "\t"]
OTHER_DIGITS = ["0123456789", "０１２３４５６７８９", "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९"]  # noqa: RUF001


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    spaces=st.lists(st.sampled_from(["", *SPACES]), min_size=3, max_size=3),
    digits=st.sampled_from(OTHER_DIGITS),
    pin=st.sampled_from(["", "w0mbat", "830147", "８３０１４７9"]),  # noqa: RUF001
    code_first=st.booleans(),
)
def test_a_code_is_taken_as_apps_show_it_and_people_write_it(
    alice: VpnUser, spaces: list[str], digits: str, pin: str, code_first: bool
) -> None:
    enrol(alice, pin, totp=True)
    code = code_at(NOW)
    before, middle, after = spaces
    written = f"{before}{code[:3]}{middle}{code[3:]}{after}".translate(str.maketrans("0123456789", digits))
    assert try_code(alice, written + pin if code_first else pin + written) == "allowed"


@pytest.mark.parametrize(
    "written", ["12 3456", "123-456", "123  456", "1234 56", "123.456", "123 45", "123 4567", "½23456"]
)
def test_what_no_app_shows_is_no_code(alice: VpnUser, written: str) -> None:
    assert list(ways_apart(written, secrets_of("totp"))) == []
    assert try_code(alice, written) == "totp_wrong"


def said(user: VpnUser, password: str, **attempt: str) -> str:
    fresh = VpnUser.objects.select_related("organization").get(pk=user.pk)
    verdict = authorize(fresh, a_policy(fresh, totp=True, pin="optional"), an_attempt(password, **attempt), NOW)
    assert isinstance(verdict, Denied)
    return verdict.reason


def test_who_offers_a_used_code_is_told_to_wait_for_the_next_one(alice: VpnUser) -> None:
    assert try_code(alice, code_at(NOW)) == "allowed"
    assert said(alice, code_at(NOW), wg_public_key="key-2") == "Second factor refused. Wait for the next code."
    assert said(alice, wrong_code()) == "Second factor refused"


@pytest.mark.parametrize("code_first", [True, False])
@pytest.mark.parametrize("pin", ["w0mbat", "830147", "8301472956"])
def test_a_used_code_does_not_tell_whether_the_pin_beside_it_is_right(
    alice: VpnUser, pin: str, code_first: bool
) -> None:
    """Who saw a code typed would try PINs beside it."""
    enrol(alice, pin, totp=True)
    code = code_at(NOW)
    assert try_code(alice, pin + code) == "allowed"
    guesses = [code + guess if code_first else guess + code for guess in (pin, "another", "571903", "5719034682")]
    answers = {said(alice, guess, device_id="thief") for guess in guesses}
    assert answers == {"Second factor refused. Wait for the next code."}
    assert alice.wrong_attempts.count == len(guesses)


PINS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=4, max_size=64) | st.from_regex(
    r"[0-9]{4,12}", fullmatch=True
)
CODES = st.from_regex(r"[0-9]{6}", fullmatch=True)


def secrets_of(*kinds: str) -> dict[str, TypedSecret]:
    return {kind: typed for kind in kinds if (typed := load(kind).typed)}


@given(pin=PINS, code=CODES, code_first=st.booleans())
def test_a_password_is_taken_apart_into_pin_and_code_in_at_most_two_ways(pin: str, code: str, code_first: bool) -> None:
    cuts = list(ways_apart(code + pin if code_first else pin + code, secrets_of("pin", "totp")))
    assert {"pin": pin, "totp": code} in cuts
    assert len(cuts) <= 2
    assert all(len(cut["totp"]) == 6 and cut["pin"] for cut in cuts)
    if not code_first:
        assert cuts[0] == {"pin": pin, "totp": code}


@given(password=st.text(max_size=80))
def test_any_password_is_cut_without_loss_or_error(password: str) -> None:
    for kinds in (["pin"], ["totp"], ["pin", "totp"]):
        for way in ways_apart(password, secrets_of(*kinds)):
            assert way.keys() == set(kinds)
            assert password in {"".join(way.values()), "".join([*way.values()][::-1])}


@pytest.mark.parametrize("pin", ["830147", "093714", "8301472956", "83014729560318"])
@pytest.mark.parametrize("code_first", [True, False])
def test_a_numeric_pin_that_looks_like_a_code_passes_either_way_round(
    alice: VpnUser, pin: str, code_first: bool
) -> None:
    enrol(alice, pin, totp=True)
    code = code_at(NOW)
    assert try_code(alice, code + pin if code_first else pin + code) == "allowed"


def test_a_pin_equal_to_the_code_is_no_problem(alice: VpnUser) -> None:
    code = code_at(NOW)
    enrol(alice, code, totp=True)
    assert try_code(alice, code + code) == "allowed"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(guess=CODES)
def test_no_code_but_the_three_in_the_window_passes(alice: VpnUser, guess: str) -> None:
    from users.factors.totp.codes import matching_step

    near = {code_at(NOW + 30 * step): NOW // 30 + step for step in (1, -1, 0)}
    assert matching_step(Secret.of(TOTP_SECRET), guess, NOW) == near.get(guess)
