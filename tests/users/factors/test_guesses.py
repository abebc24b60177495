"""Guessing for ever: pauses that grow, that outlive Redis, and that an administrator sees and ends."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client

from core import clock
from core.redis_store import redis_client
from tests.admin_site import messages, staff
from tests.attempts import a_policy, an_attempt, code_at, enrol, wrong_code
from tests.concurrency import together
from tests.conftest import Clock
from tests.factories import Company
from tests.protocol_client import NOW
from users.authorize import Denied, authorize
from users.factors import guesses
from users.models import VpnUser, WrongAttempts
from wgpeers import tasks

MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.fixture(autouse=True)
def budgets(settings: LazySettings) -> None:
    settings.ATTEMPTS_PER_USER, settings.ATTEMPTS_PER_ADDRESS, settings.ATTEMPTS_WINDOW = 10, 1000, 600


@pytest.fixture
def alice(company: Company) -> VpnUser:
    return enrol(company.hire("alice")[0], "w0mbat")


def guess(user: VpnUser, password: str, now: float = NOW, *, pin: str = "required", totp: bool = False) -> str:
    redis_client().flushall()  # it lost its memory, or its window is over
    verdict = authorize(user, a_policy(user, pin=pin, totp=totp), an_attempt(password), now)
    return getattr(verdict, "code", "allowed")


def pause(user: VpnUser, now: float, **policy: Any) -> int:
    verdict = authorize(user, a_policy(user, **policy or {"pin": "required"}), an_attempt("w0mbat"), now)
    assert isinstance(verdict, Denied)
    assert verdict.code == "too_many_attempts"
    return verdict.retry_after


def use_up(user: VpnUser, now: float = NOW) -> None:
    assert [guess(user, "0000", now) for _ in range(10)] == ["pin_wrong"] * 10


def test_each_budget_that_is_used_up_doubles_the_pause_up_to_a_day(alice: VpnUser) -> None:
    now, pauses = float(NOW), []
    for _ in range(10):
        use_up(alice, now)
        pauses.append(pause(alice, now))
        assert guess(alice, "w0mbat", now + pauses[-1] - 1) == "too_many_attempts"  # nor does the right one pass
        now += pauses[-1]
    minutes = [10, 20, 40, 80, 160, 320, 640, 1280, 1440, 1440]
    assert pauses == [each * MINUTE for each in minutes]


def test_who_guesses_slowly_comes_no_further(alice: VpnUser) -> None:
    """Nine in each window never use up the budget that Redis counts."""
    made, now, days = 0, float(NOW), 4
    while now < NOW + days * DAY:
        answers = [guess(alice, "0000", now) for _ in range(9)]
        made += answers.count("pin_wrong")
        now += 10 * MINUTE
    assert made < days * 10 + 80


def test_a_guesser_who_waits_until_all_is_forgotten_gains_little(alice: VpnUser) -> None:
    made, now, days = 0, float(NOW), 40
    while now < NOW + days * DAY:
        use_up(alice, now)
        made += 10
        left = pause(alice, now)
        now += left if left < DAY else left + DAY + 1
    assert made < days * 35


def test_parallel_guesses_are_counted_in_full(alice: VpnUser) -> None:
    def one() -> str:
        verdict = authorize(alice, a_policy(alice, pin="required"), an_attempt("0000"), NOW)
        return getattr(verdict, "code", "allowed")

    results = together([partial(one) for _ in range(20)])
    assert sorted(map(str, results)) == [*["pin_wrong"] * 10, *["too_many_attempts"] * 10]
    assert WrongAttempts.objects.get().count == 10
    assert pause(alice, NOW) == 10 * MINUTE


def test_the_pause_outlives_redis(alice: VpnUser) -> None:
    use_up(alice)
    redis_client().flushall()
    assert pause(alice, NOW + 1) == 599


def test_a_success_forgets_what_was_wrong(alice: VpnUser) -> None:
    use_up(alice)
    later = NOW + 10 * MINUTE
    assert guess(alice, "w0mbat", later) == "allowed"
    assert not WrongAttempts.objects.exists()
    use_up(alice, later)
    assert pause(alice, later) == 10 * MINUTE


def test_a_day_of_silence_after_the_pause_forgets_what_was_wrong(alice: VpnUser) -> None:
    use_up(alice)
    assert guess(alice, "0000", NOW + 10 * MINUTE + DAY) == "pin_wrong"
    assert WrongAttempts.objects.get().count == 11
    assert guess(alice, "0000", NOW + 10 * MINUTE + 2 * DAY + 1) == "pin_wrong"
    assert WrongAttempts.objects.get().count == 1


def test_a_code_alone_does_not_forgive_guesses_at_the_pin(alice: VpnUser) -> None:
    """Who has the authenticator would pass on a server that asks for that alone, and guess on at another's PIN."""
    enrol(alice, "w0mbat", totp=True)
    assert guess(alice, f"0000{code_at(NOW)}", totp=True) == "pin_wrong"
    assert guess(alice, code_at(NOW), pin="off", totp=True) == "allowed"
    assert WrongAttempts.objects.get().count == 1
    assert guess(alice, f"w0mbat{code_at(NOW + 30)}", NOW + 30, totp=True) == "allowed"
    assert not WrongAttempts.objects.exists()


def test_guesses_at_a_code_count_as_well(alice: VpnUser) -> None:
    enrol(alice, totp=True)
    assert [guess(alice, wrong_code(), pin="off", totp=True) for _ in range(10)] == ["totp_wrong"] * 10
    assert pause(alice, NOW, totp=True) == 10 * MINUTE


def test_pauses_are_of_one_user(company: Company, alice: VpnUser) -> None:
    use_up(alice)
    assert guess(enrol(company.hire("bob")[0], "w0mbat"), "w0mbat") == "allowed"


def test_what_is_forgotten_is_deleted(alice: VpnUser, fixed_clock: Clock) -> None:
    use_up(alice)
    fixed_clock.advance(DAY)
    tasks.prune()
    assert WrongAttempts.objects.exists()
    fixed_clock.advance(10 * MINUTE + 1)
    tasks.prune()
    assert not WrongAttempts.objects.exists()


LIST = "/admin/users/vpnuser/"


def test_an_administrator_sees_the_pause_and_ends_it(alice: VpnUser, client: Client) -> None:
    staff(client, superuser=True)
    page = f"{LIST}{alice.pk}/change/"
    assert "Let them try again" not in client.get(page).content.decode()
    use_up(alice, clock.now())
    shown = client.get(page).content.decode()
    assert "Let them try again" in shown
    assert "paused for 10 min after 10 wrong attempts" in shown
    assert "paused for 10 min after 10 wrong attempts" in client.get(LIST).content.decode()
    redis_client().set(f"attempts:user:{alice.public_id}", 10, ex=600)
    said = "Ended the pause after wrong second factors of alice."
    assert said in messages(client, f"{LIST}{alice.pk}/do/lift_pause/")
    assert not WrongAttempts.objects.exists()
    verdict = authorize(alice, a_policy(alice, pin="required"), an_attempt("w0mbat"), clock.now())
    assert getattr(verdict, "code", "allowed") == "allowed"
    assert said in client.get(f"{LIST}{alice.pk}/history/").content.decode()


def test_the_pause_stays_where_redis_cannot_be_told(
    alice: VpnUser, client: Client, settings: LazySettings, tmp_path: object
) -> None:
    staff(client, superuser=True)
    use_up(alice)
    settings.REDIS_URL = f"unix://{tmp_path}/nobody.sock?db=0"
    assert "Not done: Redis is down." in messages(client, f"{LIST}{alice.pk}/do/lift_pause/")
    assert guesses.of(alice) is not None
