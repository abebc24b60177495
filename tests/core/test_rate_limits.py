"""Attempt budgets: counted before the factor is looked at, given back when it was right."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest
from django.conf import LazySettings

from core import rate_limits
from core.rate_limits import TooManyAttempts
from core.redis_store import RedisUnavailable, redis_client
from tests.attempts import a_policy, an_attempt, code_at, enrol, wrong_code
from tests.concurrency import together
from tests.factories import Company, HostStandIn
from tests.protocol_client import NOW, Identity, make_request, open_answer, plaintext
from users.authorize import Allowed, Denied, authorize
from users.models import VpnUser
from wgpeers.models import Decision


@pytest.fixture(autouse=True)
def small_budgets(settings: LazySettings) -> None:
    settings.ATTEMPTS_PER_USER, settings.ATTEMPTS_PER_ADDRESS, settings.ATTEMPTS_WINDOW = 3, 5, 600


@pytest.fixture
def dead_redis(settings: LazySettings, tmp_path: Any) -> None:
    settings.REDIS_URL = f"unix://{tmp_path}/nobody.sock?db=0"


@pytest.fixture
def alice(company: Company) -> VpnUser:
    return enrol(company.hire("alice")[0], "w0mbat")


def guess(user: VpnUser, password: str, address: str = "198.51.100.7", now: float = NOW) -> str:
    verdict = authorize(user, a_policy(user, pin="required"), an_attempt(password, address=address), now)
    return getattr(verdict, "code", "allowed")


def test_after_three_wrong_pins_the_user_waits_from_wherever_they_come(alice: VpnUser) -> None:
    assert [guess(alice, "0000", f"198.51.100.{number}") for number in range(4)] == [
        *["pin_wrong"] * 3,
        "too_many_attempts",
    ]
    assert guess(alice, "w0mbat", "198.51.100.99") == "too_many_attempts"  # nor does the right one pass


def test_an_address_that_guesses_at_many_users_waits(company: Company, alice: VpnUser) -> None:
    others = [enrol(company.hire(f"user-{number}")[0], "w0mbat") for number in range(5)]
    assert [guess(other, "0000") for other in others] == ["pin_wrong"] * 5
    assert guess(alice, "w0mbat") == "too_many_attempts"
    assert guess(alice, "w0mbat", "198.51.100.8") == "allowed"


def test_the_refusal_says_how_long_to_wait(alice: VpnUser) -> None:
    for _ in range(3):
        guess(alice, "0000")
    verdict = authorize(alice, a_policy(alice, pin="required"), an_attempt("w0mbat"), NOW + 299.5)
    assert isinstance(verdict, Denied)
    assert verdict.layers[-1] == ("budget", "used_up")
    assert verdict.retry_after == 301


def test_an_address_is_told_how_long_to_wait(company: Company, alice: VpnUser) -> None:
    for number in range(5):
        guess(enrol(company.hire(f"user-{number}")[0], "w0mbat"), "0000")
    key = "attempts:address:198.51.100.7"
    redis_client().pexpire(key, 300_500)
    verdict = authorize(alice, a_policy(alice, pin="required"), an_attempt("w0mbat"), NOW)
    left = redis_client().pttl(key) / 1000
    assert isinstance(verdict, Denied)
    assert left <= verdict.retry_after <= 301


def test_of_two_budgets_used_up_the_longer_wait_is_told(alice: VpnUser) -> None:
    redis_client().set("attempts:user:someone", 3, ex=100)
    redis_client().set("attempts:address:198.51.100.7", 5, ex=300)
    with pytest.raises(TooManyAttempts) as refused:
        rate_limits.reserve("someone", "198.51.100.7")
    assert redis_client().ttl("attempts:address:198.51.100.7") <= refused.value.retry_after <= 300


def test_trying_on_does_not_lengthen_the_wait() -> None:
    for _ in range(3):
        rate_limits.reserve("someone", "198.51.100.7")
    key = "attempts:user:someone"
    redis_client().pexpire(key, 300_000)
    for _ in range(5):
        with pytest.raises(TooManyAttempts):
            rate_limits.reserve("someone", "198.51.100.7")
    assert redis_client().get(key) == "3"
    assert 0 < redis_client().pttl(key) <= 300_000


def test_after_the_window_the_budget_is_whole_again(alice: VpnUser) -> None:
    for _ in range(3):
        guess(alice, "0000")
    assert 0 < redis_client().ttl(f"attempts:user:{alice.public_id}") <= 600
    redis_client().delete(*redis_client().keys("attempts:*"))  # what expiry does
    assert guess(alice, "w0mbat", now=NOW + 600) == "allowed"


def test_a_right_answer_gives_its_attempt_back(alice: VpnUser) -> None:
    assert [guess(alice, "w0mbat") for _ in range(10)] == ["allowed"] * 10
    assert [guess(alice, "0000"), guess(alice, "w0mbat"), guess(alice, "0000")] == ["pin_wrong", "allowed", "pin_wrong"]
    assert redis_client().get(f"attempts:user:{alice.public_id}") == "2"
    assert redis_client().get("attempts:address:198.51.100.7") == "2"


def test_parallel_guesses_count_in_full(alice: VpnUser) -> None:
    results = together([partial(guess, alice, "0000") for _ in range(20)])
    assert sorted(map(str, results)) == [*["pin_wrong"] * 3, *["too_many_attempts"] * 17]


def test_both_cuts_of_one_password_are_one_attempt(alice: VpnUser) -> None:
    enrol(alice, "830147", totp=True)
    wrong = wrong_code()
    authorize(alice, a_policy(alice, pin="required", totp=True), an_attempt(wrong + wrong), NOW)
    assert redis_client().get(f"attempts:user:{alice.public_id}") == "1"


def test_what_offers_no_factor_costs_nothing(alice: VpnUser) -> None:
    assert [guess(alice, "") for _ in range(5)] == ["factor_missing"] * 5
    assert isinstance(authorize(alice, a_policy(alice), an_attempt(), NOW), Allowed)
    assert not redis_client().keys("attempts:*")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
        ("nonsense", "unknown"),
    ],
)
def test_what_counts_as_one_address(address: str, network: str) -> None:
    assert rate_limits.network_of(address) == network


def test_an_ipv6_customer_has_one_budget(company: Company) -> None:
    users = [enrol(company.hire(f"user-{number}")[0], "w0mbat") for number in range(6)]
    results = [guess(user, "0000", f"2001:db8:1:2::{number:x}") for number, user in enumerate(users)]
    assert results == [*["pin_wrong"] * 5, "too_many_attempts"]
    assert guess(users[5], "w0mbat", "2001:db8:1:3::1") == "allowed"


def test_without_redis_no_factor_is_judged(alice: VpnUser, dead_redis: None) -> None:
    with pytest.raises(RedisUnavailable):
        guess(alice, "w0mbat")
    enrol(alice, totp=True)
    with pytest.raises(RedisUnavailable):
        authorize(alice, a_policy(alice, totp=True), an_attempt(code_at(NOW)), NOW)
    alice.refresh_from_db()
    assert alice.enrolments.get().counter == 0
    with pytest.raises(RedisUnavailable):
        rate_limits.count_view("link", "198.51.100.7", 3)


def test_views_of_a_kind_are_counted_per_address_and_minute() -> None:
    assert [rate_limits.count_view("link", "198.51.100.7", 3) for _ in range(5)] == [True, True, True, False, False]
    assert rate_limits.count_view("link", "198.51.100.8", 3)
    assert rate_limits.count_view("other", "198.51.100.7", 3)
    assert 0 < redis_client().ttl("views:link:198.51.100.7") <= 60


def connect(identity: Identity, **fields: Any) -> Any:
    return make_request(identity, plaintext(**fields)).send()


def test_over_http_it_is_said_in_a_box_so_that_the_client_stays_away_and_pings_go_on(
    company: Company, host: HostStandIn
) -> None:
    user, identity = company.hire("alice")
    fields = plaintext()
    assert make_request(identity, fields).send().status_code == 200
    enrol(user, "w0mbat")
    for _ in range(3):
        assert connect(identity, password="0000").status_code == 200  # allow: false
    request = make_request(identity, plaintext(password="w0mbat"))
    answer = open_answer(request.send().json(), identity, request.box_private_key)
    assert answer == {"allow": False, "reason": answer["reason"], "configuration": None}
    assert re.fullmatch(r"Too many attempts. Wait a while. Try again in (9|10) minutes\.", answer["reason"])
    assert Decision.objects.latest("pk").code == "too_many_attempts"
    before = redis_client().mget(redis_client().keys("attempts:*"))
    for number in range(10):
        ping = plaintext(wg_public_key=fields["wg_public_key"], timestamp=NOW + number)
        assert make_request(identity, ping, method="PUT").send().status_code == 200
    assert redis_client().mget(redis_client().keys("attempts:*")) == before
