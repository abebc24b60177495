"""What is read of a user's factors for a connect: in one statement, what the ORM says, on whichever database."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction

from core.clock import moment
from tests.admin_site import queued
from tests.attempts import a_policy, an_attempt, enrol
from tests.factories import Company
from tests.protocol_client import NOW
from users.authorize import Allowed, authorize
from users.factors.base import AskedFactor
from users.factors.held import device_is_revoked, held_by
from users.factors.wanted import profile_flags, wanted_factors
from users.models import Device, FactorOverride, VpnUser


@pytest.fixture
def alice(company: Company) -> VpnUser:
    bob, _ = company.hire("bob")
    enrol(bob, "w1mbat", totp=True)
    override(bob, "pin", "required")
    return company.hire("alice")[0]


def override(user: VpnUser, kind: str, state: str, until: float | None = None) -> None:
    reason = "Lost the phone" if state == "exempt" else ""
    ends = None if until is None else moment(until)
    FactorOverride.objects.create(user=user, kind=kind, state=state, reason=reason, until=ends)


def values(row: models.Model) -> dict[str, Any]:
    found = {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}
    return {name: (type(value), value) for name, value in found.items()}


def test_a_device_is_revoked_as_the_orm_would_say(alice: VpnUser, company: Company) -> None:
    carol = company.hire("carol")[0]
    for user, device, revoked in ((alice, "lost", True), (alice, "kept", False), (carol, "kept", True)):
        moments = {"first_seen": moment(NOW), "last_seen": moment(NOW)}
        Device.objects.create(user=user, device_id=device, revoked=moment(NOW) if revoked else None, **moments)
    for user in (alice, carol):
        for device in ("lost", "kept", "unknown", ""):
            rows = Device.objects.filter(user=user, device_id=device, revoked__isnull=False)
            assert device_is_revoked(user.pk, device) is rows.exists(), (user, device)
    assert device_is_revoked(alice.pk, "lost")


def test_enrolments_are_read_as_the_orm_would(alice: VpnUser, django_assert_num_queries: Any) -> None:
    assert (held_by(alice.pk, NOW).enrolments, held_by(alice.pk, NOW).overrides) == ({}, {})
    enrol(alice, "w0mbat", totp=True)
    alice.enrolments.filter(kind="totp").update(counter=2**40, last_attempt="käse")
    override(alice, "pin", "required")
    override(alice, "totp", "exempt")
    with django_assert_num_queries(1):
        held = held_by(alice.pk, NOW)
    same = {row.kind: values(row) for row in alice.enrolments.all()}
    assert {kind: values(row) for kind, row in held.enrolments.items()} == same
    assert len(same) == 2
    assert held.overrides == dict(alice.factor_overrides.values_list("kind", "state"))


@pytest.mark.parametrize("fraction", [0, 0.5])
@pytest.mark.parametrize("seconds", [-86400, -1, 0, 0.25, 1, 86400, None])
def test_an_exemption_ends_at_its_time(alice: VpnUser, seconds: float | None, fraction: float) -> None:
    now = NOW + fraction
    override(alice, "totp", "exempt", None if seconds is None else now + seconds)
    holds = models.Q(until=None) | models.Q(until__gt=moment(now))
    expected = dict(alice.factor_overrides.filter(holds).values_list("kind", "state"))
    assert held_by(alice.pk, now).overrides == expected
    assert bool(expected) == (seconds is None or seconds > 0)


def wanted(user: VpnUser, pin: str, totp: bool, now: float = NOW) -> dict[str, str]:
    found = wanted_factors(a_policy(user, pin=pin, totp=totp), user, now)
    return {each.kind: each.asked.mode for each in found}


CASES: list[tuple[str, bool, dict[str, str], dict[str, str]]] = [
    # what the server asks, what holds for the user alone, what is wanted of them
    ("off", False, {}, {}),
    ("off", False, {"totp": "required"}, {"totp": "required"}),
    ("optional", False, {"pin": "required"}, {"pin": "required"}),
    ("required", True, {"totp": "exempt"}, {"pin": "required"}),
    ("required", True, {"totp": "exempt", "pin": "exempt"}, {}),
    ("off", False, {"totp": "exempt"}, {}),
    ("required", False, {"pin": "exempt", "totp": "required"}, {"totp": "required"}),
]


@pytest.mark.parametrize(("pin", "totp", "overrides", "expected"), CASES)
def test_what_is_wanted_is_what_the_server_asks_and_what_holds_for_the_user(
    alice: VpnUser, pin: str, totp: bool, overrides: dict[str, str], expected: dict[str, str]
) -> None:
    for kind, state in overrides.items():
        override(alice, kind, state)
    assert wanted(alice, pin, totp) == expected
    modes = {"pin": "pin", "totp": "otp"}
    flags = profile_flags(alice, a_policy(alice, pin=pin, totp=totp), NOW)
    assert set((flags.password_mode or "").split("_")) - {""} == {modes[kind] for kind in expected}


def test_who_is_exempt_is_asked_again_when_it_ends(alice: VpnUser) -> None:
    enrol(alice, "w0mbat")
    override(alice, "pin", "exempt", NOW + 60)
    policy = a_policy(alice, pin="required")
    assert isinstance(authorize(alice, policy, an_attempt(), NOW + 59), Allowed)
    assert getattr(authorize(alice, policy, an_attempt(), NOW + 60), "code", "") == "factor_missing"


def test_what_the_server_says_of_a_factor_holds_also_where_the_user_must_have_it(alice: VpnUser) -> None:
    override(alice, "pin", "required")
    policy = a_policy(alice, factors=(AskedFactor("pin", "optional", "refuse", {"shortest": 8}),))
    (each,) = wanted_factors(policy, alice, NOW)
    assert (each.asked.mode, each.asked.settings) == ("required", {"shortest": 8})


@pytest.mark.parametrize("state", ["required", "exempt"])
@pytest.mark.parametrize("asked", [(), (AskedFactor("palm", "optional"),)])
def test_a_factor_that_is_not_installed_refuses_whoever_names_it(
    alice: VpnUser, asked: tuple[AskedFactor, ...], state: str
) -> None:
    override(alice, "palm", state)
    verdict = authorize(alice, a_policy(alice, factors=asked), an_attempt(), NOW)
    assert getattr(verdict, "code", "") == "palm_not_installed"


def test_a_server_can_ask_for_longer_pins(alice: VpnUser) -> None:
    enrol(alice, "w0mbat")
    policy = a_policy(alice, factors=(AskedFactor("pin", settings={"shortest": 7}),))
    right, wrong = (authorize(alice, policy, an_attempt(pin), NOW) for pin in ("w0mbat", "1357"))
    assert (getattr(right, "code", ""), getattr(wrong, "code", "")) == ("pin_too_short", "pin_wrong")
    assert getattr(right, "reason", "right") == getattr(wrong, "reason", "wrong")
    enrol(alice, "w0mbat0")
    assert isinstance(authorize(alice, policy, an_attempt("w0mbat0"), NOW), Allowed)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"state": "exempt", "reason": ""}, "reason"),
        ({"state": "exempt", "reason": "  "}, "reason"),
        ({"state": "required", "until": moment(NOW)}, "until"),
        ({"state": "sometimes"}, "state"),
    ],
)
def test_an_exception_that_says_nothing_is_refused(alice: VpnUser, fields: dict[str, Any], field: str) -> None:
    row = FactorOverride(user=alice, kind="pin", **fields)
    with pytest.raises(ValidationError) as refused:
        row.full_clean()
    assert field in refused.value.message_dict


def test_nobody_is_exempt_without_a_reason_by_any_door(alice: VpnUser) -> None:
    rows = FactorOverride.objects.filter(user=alice)
    with pytest.raises(IntegrityError), transaction.atomic():
        FactorOverride.objects.bulk_create([FactorOverride(user=alice, kind="pin", state="exempt")])
    override(alice, "totp", "exempt")
    with pytest.raises(IntegrityError), transaction.atomic():
        rows.update(reason="")
    with pytest.raises(IntegrityError), transaction.atomic():
        rows.update(state="maybe")


def test_exceptions_are_enforced_after_commit(alice: VpnUser) -> None:
    before = queued().count("wgpeers.enforce")
    override(alice, "pin", "required")
    assert queued().count("wgpeers.enforce") == before + 1
    alice.factor_overrides.all().delete()
    assert queued().count("wgpeers.enforce") == before + 2
