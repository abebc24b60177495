"""What is remembered of a pass: the factor token that stands for it, and the reconnect grace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from core.crypto import Secret
from core.totp import new_secret
from tests.attempts import a_policy, an_attempt, code_at, enrol, pin_hash
from tests.conftest import Clock
from tests.factories import Company, found
from tests.protocol_client import NOW
from users.authorize import Allowed, authorize
from users.factors.pin.enrolment import remove_pin, set_pin
from users.factors.remembered import store
from users.factors.totp.enrolment import remove_totp, set_up_totp
from users.models import RememberedPass, VpnUser
from wgpeers import tasks

TTL = 1000
LATER = NOW + 600  # the code of NOW is long out of its window
PASSWORD = f"w0mbat{code_at(NOW)}"


@pytest.fixture
def company(db: None, fixed_clock: Clock) -> Company:
    return found()


@pytest.fixture
def alice(company: Company) -> VpnUser:
    return enrol(company.hire("alice")[0], "w0mbat", totp=True)


def judge(
    user: VpnUser, password: str, now: float = NOW, token: str = "", policy: dict[str, Any] | None = None, **more: str
) -> tuple[str, str]:
    """What the last layer said, of a server with both factors. The user is read anew, as each request does."""
    fresh = VpnUser.objects.select_related("organization").get(pk=user.pk)
    rules: dict[str, Any] = {"pin": "required", "totp": True, "token_ttl": TTL, "grace": 0} | (policy or {})
    verdict = authorize(fresh, a_policy(fresh, **rules), an_attempt(password, token, **more), now)
    if isinstance(verdict, Allowed):
        store(verdict.passes)  # as a connect does once the client is connected
    return verdict.layers[-1]


GRACE = {"grace": TTL, "token_ttl": 0}
PASSED = {("pin", "ok"), ("totp", "ok")}
OF_ANOTHER_TIME = ("totp", "clock")


def test_a_token_stands_for_pin_and_code_after_one_pass(alice: VpnUser) -> None:
    assert judge(alice, "", token="token-1") == ("factors", "missing")
    assert judge(alice, PASSWORD, token="token-1") in PASSED
    assert judge(alice, "", LATER, token="token-1") == ("factor_token", "ok")
    assert judge(alice, "anything", LATER, token="token-1") == ("factor_token", "ok")


def test_a_token_is_not_remembered_from_a_refused_attempt(alice: VpnUser) -> None:
    assert judge(alice, "000000", token="token-1") == ("totp", "wrong")
    assert judge(alice, "", token="token-1") == ("factors", "missing")


def test_a_token_expires_at_its_time_from_the_pass_and_use_does_not_extend_it(alice: VpnUser) -> None:
    judge(alice, PASSWORD, token="token-1")
    assert judge(alice, "", NOW + TTL - 1, token="token-1") == ("factor_token", "ok")
    assert judge(alice, "", NOW + TTL, token="token-1") == ("factors", "missing")


STRANGERS: list[dict[str, Any]] = [
    {"token": "token-2"},
    {"token": ""},
    {"device_id": "device-2"},
    {"device_name": "egret"},
    {"policy": {"server": "d4e5f6"}},
    {"policy": {"token_ttl": 0}},
]


@pytest.mark.parametrize("other", STRANGERS)
def test_a_token_is_good_for_nobody_and_nowhere_else(alice: VpnUser, other: dict[str, Any]) -> None:
    judge(alice, PASSWORD, token="token-1")
    assert judge(alice, "", LATER, **{"token": "token-1"} | other) == ("factors", "missing")


def test_a_token_of_one_user_is_nothing_for_another(company: Company, alice: VpnUser) -> None:
    bob = enrol(company.hire("bob")[0], "w0mbat", totp=True)
    judge(alice, PASSWORD, token="token-1")
    assert judge(bob, "", token="token-1") == ("factors", "missing")


VOIDED = [("pin", {"hash": pin_hash("b4dger")}), ("totp", {"secret": "another"})]


@pytest.mark.parametrize("change", VOIDED)
@pytest.mark.parametrize("kind", ["token", "grace"])
def test_a_new_pin_or_authenticator_voids_what_was_remembered(
    alice: VpnUser, change: tuple[str, dict[str, Any]], kind: str
) -> None:
    policy = {} if kind == "token" else GRACE
    judge(alice, PASSWORD, token="token-1", policy=policy)
    factor, values = change
    if "secret" in values:
        values = {"secret": new_secret()}
    alice.enrolments.filter(kind=factor).update(**values)
    verdict = judge(alice, "" if kind == "token" else PASSWORD, LATER, token="token-1", policy=policy)
    assert verdict in {("factors", "missing"), ("totp", "wrong"), OF_ANOTHER_TIME}


CHANGES: list[Callable[[VpnUser], object]] = [
    lambda user: set_pin(user, "b4dger"),
    remove_pin,
    set_up_totp,
    remove_totp,
]


@pytest.mark.parametrize("change", CHANGES)
def test_setting_or_removing_a_factor_leaves_nothing_remembered_of_this_user(
    company: Company, alice: VpnUser, change: Callable[[VpnUser], object]
) -> None:
    bob = enrol(company.hire("bob")[0], "w0mbat", totp=True)
    judge(alice, PASSWORD, token="token-1")
    judge(bob, PASSWORD, token="token-1")
    change(alice)
    assert [row.user for row in RememberedPass.objects.all()] == [bob]


def test_a_pin_that_is_refused_changes_nothing(alice: VpnUser) -> None:
    judge(alice, PASSWORD, token="token-1")
    with pytest.raises(ValueError, match="A PIN has"):
        set_pin(alice, "1")
    assert judge(alice, "", LATER, token="token-1") == ("factor_token", "ok")


def test_the_same_secrets_encrypted_anew_void_nothing(alice: VpnUser) -> None:
    judge(alice, PASSWORD, token="token-1")
    for row in alice.enrolments.filter(kind="totp"):
        alice.enrolments.filter(pk=row.pk).update(secret=Secret.of(row.secret.reveal()))
    assert judge(alice, "", LATER, token="token-1") == ("factor_token", "ok")


@pytest.mark.parametrize("kind", ["token", "grace"])
def test_a_pass_of_the_pin_alone_does_not_stand_for_a_code_that_is_asked_since(alice: VpnUser, kind: str) -> None:
    before = {"totp": False} if kind == "token" else {"totp": False, **GRACE}
    after = before | {"totp": True}
    assert judge(alice, "w0mbat", token="token-1", policy=before) == ("pin", "ok")
    assert judge(alice, "w0mbat", token="token-1", policy=after) == ("totp", "wrong")


def test_within_the_grace_exactly_the_secret_that_passed_passes_again(alice: VpnUser) -> None:
    assert judge(alice, PASSWORD, policy=GRACE) in PASSED
    again: dict[str, Any] = {"policy": GRACE, "wg_public_key": "key-2"}
    assert judge(alice, PASSWORD, LATER, **again) == ("reconnect_grace", "ok")
    assert judge(alice, PASSWORD[::-1], LATER, **again)[1] == "wrong"
    assert judge(alice, f"{code_at(NOW)}w0mbat", LATER, **again) == OF_ANOTHER_TIME
    assert judge(alice, "", LATER, **again) == ("factors", "missing")


@pytest.mark.parametrize(
    "other", [{"device_id": "device-2"}, {"device_name": "egret"}, {"policy": GRACE | {"server": "d"}}]
)
def test_the_grace_is_of_one_device_on_one_server(alice: VpnUser, other: dict[str, Any]) -> None:
    judge(alice, PASSWORD, policy=GRACE)
    assert judge(alice, PASSWORD, LATER, **{"policy": GRACE} | other) == OF_ANOTHER_TIME


def test_the_grace_ends_at_its_time_from_the_pass_and_reconnecting_does_not_extend_it(alice: VpnUser) -> None:
    judge(alice, PASSWORD, policy=GRACE)
    assert judge(alice, PASSWORD, NOW + TTL - 1, policy=GRACE) == ("reconnect_grace", "ok")
    assert judge(alice, PASSWORD, NOW + TTL, policy=GRACE) == OF_ANOTHER_TIME


def test_without_grace_a_used_code_is_used(alice: VpnUser) -> None:
    off = {"grace": 0, "token_ttl": 0}
    judge(alice, PASSWORD, policy=off)
    assert not RememberedPass.objects.exists()
    assert judge(alice, PASSWORD, LATER, policy=off) == OF_ANOTHER_TIME


def test_turning_the_grace_off_ends_it_at_once(alice: VpnUser) -> None:
    judge(alice, PASSWORD, policy=GRACE)
    assert judge(alice, PASSWORD, LATER, policy={"grace": 0}) == OF_ANOTHER_TIME


def test_a_disabled_user_has_no_grace(alice: VpnUser) -> None:
    judge(alice, PASSWORD, policy=GRACE)
    VpnUser.objects.filter(pk=alice.pk).update(enabled=False)
    assert judge(alice, PASSWORD, LATER, policy=GRACE) == ("account", "user_disabled")


def test_only_keyed_hashes_are_kept_and_they_go_when_they_are_old(alice: VpnUser, fixed_clock: Clock) -> None:
    judge(alice, PASSWORD, token="token-1", policy={"grace": TTL, "token_ttl": TTL})
    rows = RememberedPass.objects.values_list()
    assert len(rows) == 2
    assert not any(secret in repr(row) for row in rows for secret in (PASSWORD, "w0mbat", "token-1"))
    fixed_clock.advance(TTL + 1)
    tasks.prune()
    assert not RememberedPass.objects.exists()
