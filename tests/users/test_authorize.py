"""authorize: account, then policy, then factors, each refusal with its stable code."""

from __future__ import annotations

from typing import Any

import pytest

from tests.attempts import a_policy, an_attempt, code_at, enrol, wrong_code
from tests.conftest import Clock
from tests.factories import Company, found
from tests.protocol_client import NOW
from users.authorize import Allowed, Denied, authorize
from users.factors.pin import enrolment as pins
from users.factors.wanted import ProfileFlags, profile_flags
from users.models import Group, Organization, VpnUser


@pytest.fixture
def company(db: None, fixed_clock: Clock) -> Company:
    return found()


@pytest.fixture
def alice(company: Company) -> VpnUser:
    return company.hire("alice")[0]


def test_who_is_asked_for_nothing_is_allowed(alice: VpnUser) -> None:
    verdict = authorize(alice, a_policy(alice), an_attempt(), NOW)
    assert verdict == Allowed((("account", "ok"), ("policy", "ok"), ("factors", "none_asked")))


def test_a_disabled_user_is_refused_before_anything_else_is_looked_at(alice: VpnUser) -> None:
    alice.enabled = False
    verdict = authorize(alice, a_policy(alice, organizations=frozenset(), pin="required"), an_attempt("1234"), NOW)
    assert isinstance(verdict, Denied)
    assert (verdict.layers, verdict.code) == ((("account", "user_disabled"),), "user_disabled")


def test_a_disabled_organization_refuses_its_users(alice: VpnUser) -> None:
    alice.organization.enabled = False
    verdict = authorize(alice, a_policy(alice), an_attempt(), NOW)
    assert isinstance(verdict, Denied)
    assert (verdict.layer, verdict.code) == ("account", "organization_disabled")


@pytest.mark.parametrize(
    ("policy", "attempt", "code"),
    [
        ({"organizations": frozenset()}, {}, "not_in_organization"),
        ({"organizations": frozenset({-1})}, {}, "not_in_organization"),
        ({"platforms": frozenset({"mac", "ios"})}, {}, "platform_not_allowed"),
        ({"platforms": frozenset({"linux"})}, {"platform": "LINUX"}, "platform_not_allowed"),
        ({"platforms": frozenset({"linux"})}, {"platform": "unknown"}, "platform_not_allowed"),
    ],
)
def test_what_the_policy_refuses(alice: VpnUser, policy: dict[str, Any], attempt: dict[str, Any], code: str) -> None:
    verdict = authorize(alice, a_policy(alice, **policy), an_attempt(**attempt), NOW)
    assert isinstance(verdict, Denied)
    assert verdict.layers == (("account", "ok"), ("policy", code))
    assert (verdict.code, verdict.retry_after) == (code, 0)
    assert verdict.reason.endswith(".")


def test_a_server_with_groups_lets_in_only_who_is_in_one_of_them(alice: VpnUser) -> None:
    staff, guests = Group.objects.create(name="staff"), Group.objects.create(name="guests")
    alice.groups.add(guests)
    refused = authorize(alice, a_policy(alice, groups=frozenset({staff.pk})), an_attempt(), NOW)
    assert isinstance(refused, Denied)
    assert refused.code == "not_in_group"
    both = frozenset({staff.pk, guests.pk})
    assert isinstance(authorize(alice, a_policy(alice, groups=both), an_attempt(), NOW), Allowed)


def test_a_namesake_in_another_organization_gets_nowhere(company: Company, alice: VpnUser) -> None:
    other = Organization.objects.create(name="Other")
    namesake = VpnUser.objects.create(organization=other, name="alice")
    verdict = authorize(namesake, a_policy(alice), an_attempt(), NOW)
    assert isinstance(verdict, Denied)
    assert verdict.code == "not_in_organization"


PIN_CASES = [
    # mode, PIN set, password sent, code of the refusal (None: allowed)
    ("off", "", "", None),
    ("off", "w0mbat", "", None),
    ("off", "w0mbat", "0000", None),
    ("optional", "", "", None),
    ("optional", "", "w0mbat", None),
    ("optional", "w0mbat", "w0mbat", None),
    ("optional", "w0mbat", "", "factor_missing"),
    ("optional", "w0mbat", "1357", "pin_wrong"),
    ("required", "", "", "pin_not_enrolled"),
    ("required", "", "w0mbat", "pin_not_enrolled"),
    ("required", "w0mbat", "", "factor_missing"),
    ("required", "w0mbat", "w0mbat", None),
    ("required", "w0mbat", "w0mbat0", "pin_wrong"),
    ("required", "w0mbat", " w0mbat", "pin_wrong"),
    ("required", "830147", "830147", None),
]


@pytest.mark.parametrize(("mode", "pin", "password", "code"), PIN_CASES)
def test_pin_modes(alice: VpnUser, mode: str, pin: str, password: str, code: str | None) -> None:
    verdict = authorize(enrol(alice, pin), a_policy(alice, pin=mode), an_attempt(password), NOW)
    assert getattr(verdict, "code", None) == code
    assert isinstance(verdict, Denied if code else Allowed)


TOTP_CASES = [
    ("off", "", lambda code: code, None),
    ("optional", "", lambda code: code, None),
    ("optional", "w0mbat", lambda code: f"w0mbat{code}", None),
    ("required", "w0mbat", lambda code: f"w0mbat{code}", None),
    ("required", "w0mbat", lambda code: f"{code}w0mbat", None),
    ("required", "w0mbat", lambda code: code, "totp_wrong"),
    ("required", "w0mbat", lambda code: "w0mbat", "totp_wrong"),
    ("required", "w0mbat", lambda code: f"1357{code}", "pin_wrong"),
    ("required", "w0mbat", lambda code: f"w0mbat {code}", None),
    ("off", "", lambda code: code + code, "totp_wrong"),
    ("off", "", lambda code: code[:5], "totp_wrong"),
    ("off", "", lambda code: f" {code}", None),
    ("off", "", lambda code: code.translate(str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")), None),
    ("off", "", lambda code: "", "factor_missing"),
]


@pytest.mark.parametrize(("mode", "pin", "password", "code"), TOTP_CASES)
def test_totp_alone_and_with_a_pin(alice: VpnUser, mode: str, pin: str, password: Any, code: str | None) -> None:
    enrol(alice, pin, totp=True)
    verdict = authorize(alice, a_policy(alice, pin=mode, totp=True), an_attempt(password(code_at(NOW))), NOW)
    assert getattr(verdict, "code", None) == code


def test_who_has_no_authenticator_is_told_so_and_not_that_the_code_is_wrong(alice: VpnUser) -> None:
    verdict = authorize(alice, a_policy(alice, totp=True), an_attempt("123456"), NOW)
    assert isinstance(verdict, Denied)
    assert verdict.layers[-1] == ("totp", "not_enrolled")
    assert verdict.code == "totp_not_enrolled"


def test_a_refusal_tells_the_user_nothing_of_which_factor_was_wrong(alice: VpnUser) -> None:
    enrol(alice, "w0mbat", totp=True)
    policy = a_policy(alice, pin="required", totp=True)
    wrong_pin = authorize(alice, policy, an_attempt(f"1357{code_at(NOW)}"), NOW)
    wrong_totp = authorize(alice, policy, an_attempt(f"w0mbat{wrong_code()}"), NOW)
    assert isinstance(wrong_pin, Denied)
    assert isinstance(wrong_totp, Denied)
    assert (wrong_pin.code, wrong_totp.code) == ("pin_wrong", "totp_wrong")
    assert wrong_pin.reason == wrong_totp.reason


def test_layers_name_every_factor_that_passed(alice: VpnUser) -> None:
    enrol(alice, "w0mbat", totp=True)
    verdict = authorize(alice, a_policy(alice, pin="required", totp=True), an_attempt(f"w0mbat{code_at(NOW)}"), NOW)
    assert set(verdict.layers[2:]) == {("pin", "ok"), ("totp", "ok")}


@pytest.mark.parametrize(
    ("pin_mode", "pin", "totp", "mode"),
    [
        ("off", "", False, None),
        ("optional", "", False, None),
        ("optional", "w0mbat", False, "pin"),
        ("required", "", False, "pin"),
        ("off", "w0mbat", True, "otp"),
        ("optional", "", True, "otp"),
        ("optional", "w0mbat", True, "otp_pin"),
        ("required", "", True, "otp_pin"),
    ],
)
def test_the_profile_asks_for_what_authorize_wants(
    alice: VpnUser, pin_mode: str, pin: str, totp: bool, mode: str | None
) -> None:
    enrol(alice, pin, totp)
    flags = profile_flags(alice, a_policy(alice, pin=pin_mode, totp=totp), NOW)
    assert flags == ProfileFlags(mode, push_auth=False, push_auth_ttl=0, sso_auth=False, device_auth=False)


@pytest.mark.parametrize("pin", ["", "12345", "x" * 65, "w0m bat", "w0m\nbat", "w0m\x00bat"])
def test_a_pin_that_cannot_work_is_refused_in_words(pin: str) -> None:
    with pytest.raises(ValueError, match="A PIN has"):
        pins.hash_pin(pin)


def test_a_pin_is_kept_as_argon2_with_a_salt(alice: VpnUser) -> None:
    first, second = pins.hash_pin("w0mbat"), pins.hash_pin("w0mbat")
    assert first.startswith("argon2$argon2id$")
    assert first != second
