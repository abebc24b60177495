"""Codes of the app and recovery codes: each good once, wrong ones counted, the wait seen and lifted."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from core import clock
from core.crypto import CannotDecrypt, Secret
from core.models import AdminAuthenticator, AdminGuesses, RecoveryCode
from core.redis_store import redis_client
from core.second_factor import codes, guesses, recovery
from tests.concurrency import together
from tests.conftest import Clock

from .administrators import (
    ACCOUNT,
    VERIFY,
    administrator,
    code,
    history,
    is_in,
    recovery_codes,
    signed_in,
    with_password,
    wrong,
)

HERE = "192.0.2.7"


@pytest.fixture
def root(transactional_db: None, settings: Settings, fixed_clock: Clock) -> User:
    settings.ADMIN_SECOND_FACTOR = "required"
    return administrator(app=True)


def offer(user: User, text: str) -> str:
    """The kind of code that it was, or why it was none."""
    try:
        return codes.offer(user, text, HERE, clock.now())
    except codes.CodeRefused as refused:
        return str(refused)


@pytest.mark.parametrize(("steps", "passes"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_a_code_is_good_a_step_either_way(root: User, steps: int, passes: bool) -> None:
    assert (offer(root, code(steps)) == codes.AUTHENTICATOR) is passes


@pytest.mark.parametrize("later", [0, -1])
def test_a_code_is_good_once_and_none_before_it_afterwards(root: User, later: int) -> None:
    assert offer(root, code()) == codes.AUTHENTICATOR
    assert offer(root, code(later)) == codes.WRONG
    assert offer(root, code(1)) == codes.AUTHENTICATOR


def test_of_many_requests_with_one_code_at_once_one_passes(root: User) -> None:
    """Each in a connection of its own, as in processes of their own."""
    said = together([lambda: offer(root, code())] * 4)
    assert sorted(map(str, said)) == sorted([codes.AUTHENTICATOR, *[codes.WRONG] * 3])
    one = recovery_codes(root)[0]
    said = together([lambda: offer(root, one)] * 4)
    assert sorted(map(str, said)) == sorted([codes.RECOVERY, *[codes.WRONG] * 3])


def test_the_claim_holds_without_the_lock(root: User) -> None:
    """What a second process reads before the first one has written does not pass either."""
    row = AdminAuthenticator.objects.get()
    step = int(clock.now()) // 30
    claims = [AdminAuthenticator.objects.filter(pk=row.pk, counter__lt=step).update(counter=step) for _ in range(2)]
    assert claims == [1, 0]


def test_a_recovery_code_signs_in_once_however_it_is_written(root: User) -> None:
    first, second, *_ = recovery_codes(root)
    client = with_password()
    assert client.post(VERIFY, {"code": first.lower().replace("-", " ")}).status_code == 302
    assert is_in(client)
    assert "Used a recovery code from 192.0.2.7; 9 are left." in history(root)
    assert offer(root, first) == codes.WRONG
    assert offer(root, second.replace("-", "")) == codes.RECOVERY
    assert "8 of 10 are left" in client.get(ACCOUNT).content.decode()


def test_a_recovery_code_passes_where_the_apps_secret_is_lost(root: User) -> None:
    AdminAuthenticator.objects.update(secret=Secret("encrypted with a key that is gone"))
    assert offer(root, recovery_codes(root)[0]) == codes.RECOVERY
    with pytest.raises(CannotDecrypt):
        offer(root, code())


def test_new_recovery_codes_void_the_old_and_are_kept_as_hashes(root: User) -> None:
    old, new = recovery_codes(root), recovery_codes(root)
    assert len(set(old) | set(new)) == 20
    assert [offer(root, each) for each in old[:3]] == [codes.WRONG] * 3
    assert offer(root, new[0]) == codes.RECOVERY
    stored = " ".join(RecoveryCode.objects.values_list("hash", flat=True))
    assert not [each for each in new if each in stored or recovery.plain(each) in stored]


def test_anothers_code_does_not_pass(root: User) -> None:
    carol = administrator("carol", app=True)
    AdminAuthenticator.objects.filter(administrator=carol).delete()
    assert offer(carol, code()) == codes.WRONG
    assert offer(carol, recovery_codes(root)[0]) == codes.WRONG


@pytest.mark.parametrize("text", ["", " ", "-" * 40, "0" * 5, "0" * 7, "ß" * 16, "\x00", "\u0661" * 6, "A" * 100])
def test_nonsense_is_a_wrong_code(root: User, text: str) -> None:
    assert offer(root, text) == codes.WRONG


def test_after_too_many_wrong_ones_the_right_one_waits_and_the_wait_ends_by_itself(
    root: User, settings: Settings, fixed_clock: Clock
) -> None:
    settings.ATTEMPTS_PER_USER = 3
    assert [offer(root, wrong()) for _ in range(3)] == [codes.WRONG] * 3
    assert "Too many wrong codes. Try again in 10 minutes" in offer(root, code())
    redis_client().flushall()  # what Redis counted is gone; what the database did is not
    assert "Too many wrong codes" in offer(root, code())
    assert "3 wrong codes, the last from 192.0.2.7; none passes until" in history(root)
    fixed_clock.advance(601)
    redis_client().flushall()
    assert offer(root, code()) == codes.AUTHENTICATOR
    assert not AdminGuesses.objects.exists()


def test_each_wait_is_twice_as_long(root: User, settings: Settings, fixed_clock: Clock) -> None:
    settings.ATTEMPTS_PER_USER = 2
    waits = []
    for _ in range(3):
        for _ in range(2):
            assert offer(root, wrong()) == codes.WRONG
        waits.append(guesses.pause_left(root, clock.now()))
        fixed_clock.advance(waits[-1] + 1)
        redis_client().flushall()
    assert waits == [600, 1200, 2400]


def test_a_burst_of_guesses_counts_in_full(root: User, settings: Settings) -> None:
    settings.ATTEMPTS_PER_USER = 3
    said = together([lambda: offer(root, wrong())] * 8)
    assert sum(each == codes.WRONG for each in said) <= 3


def test_a_guesser_at_one_administrator_does_not_stop_another(root: User, settings: Settings) -> None:
    settings.ATTEMPTS_PER_USER = 2
    carol = administrator("carol", app=True)
    for _ in range(3):
        offer(root, wrong())
    assert offer(carol, code()) == codes.AUTHENTICATOR


def test_another_administrator_sees_the_wait_and_ends_it(root: User, settings: Settings) -> None:
    settings.ATTEMPTS_PER_USER = 2
    carol = administrator("carol", app=True)
    client = signed_in("root")
    for _ in range(2):
        offer(carol, wrong())
    page = f"/admin/auth/user/{carol.pk}/"
    assert "wrong codes: none is looked at" in client.get(f"{page}change/").content.decode()
    assert client.post(f"{page}do/lift_codes_pause/").status_code == 302
    assert offer(carol, code()) == codes.AUTHENTICATOR
    assert "Ended the pause after wrong codes of carol." in history(carol)


def test_nobody_ends_their_own_wait(root: User) -> None:
    client = signed_in("root")
    AdminGuesses.objects.create(
        administrator=root, count=10, last=clock.moment(0), paused_until=clock.moment(clock.now() + 60)
    )
    client.post(f"/admin/auth/user/{root.pk}/do/lift_codes_pause/")
    assert AdminGuesses.objects.exists()


def test_where_attempts_cannot_be_counted_no_code_passes(root: User, settings: Settings) -> None:
    settings.REDIS_URL = "unix:///nowhere/redis.sock"
    assert "Redis is down" in offer(root, code())
    assert AdminAuthenticator.objects.get().counter == 0
