"""Recovery codes: each stands once for the authenticator, beside a PIN and alone, and is readable nowhere."""

from __future__ import annotations

import threading
from functools import partial

import pytest
from cryptography.fernet import Fernet
from django.conf import LazySettings
from django.core.management import call_command
from django.db import connection as database
from django.test import Client

from tests.admin_site import staff
from tests.attempts import a_policy, an_attempt, code_at, enrol
from tests.concurrency import together
from tests.factories import Company
from tests.lab import HANGING
from tests.protocol_client import NOW
from users.authorize import Allowed, Denied, authorize
from users.factors import enrolments
from users.factors.totp import recovery
from users.models import RecoveryCode, VpnUser


@pytest.fixture
def alice(company: Company) -> VpnUser:
    return enrol(company.hire("alice")[0], "w0mbat", totp=True)


def codes_of(user: VpnUser) -> list[str]:
    return recovery.make(user.enrolments.get(kind="totp"))


def try_it(user: VpnUser, password: str, now: float = NOW, **attempt: str) -> Allowed | Denied:
    fresh = VpnUser.objects.select_related("organization").get(pk=user.pk)
    verdict = authorize(fresh, a_policy(fresh, pin="required", totp=True), an_attempt(password, **attempt), now)
    assert isinstance(verdict, Allowed | Denied)
    return verdict


def said(verdict: Allowed | Denied) -> str:
    return verdict.code if isinstance(verdict, Denied) else "allowed"


def test_there_are_ten_of_a_form_that_can_be_typed(alice: VpnUser) -> None:
    codes = codes_of(alice)
    assert len(set(codes)) == 10
    assert all(recovery.FORM.fullmatch(code) for code in codes)


@pytest.mark.parametrize("written", ["w0mbat{}", "{}w0mbat", "w0mbat {}", "w0mbat{} "])
@pytest.mark.parametrize("capitals", [False, True])
def test_one_stands_for_a_code_beside_a_pin_in_either_order(alice: VpnUser, written: str, capitals: bool) -> None:
    code = codes_of(alice)[0]
    verdict = try_it(alice, written.format(code.upper() if capitals else code))
    assert isinstance(verdict, Allowed)
    assert ("totp", "recovery_code") in verdict.layers
    assert verdict.detail == "totp_recovery_code: 9 left"


def test_each_passes_once_and_again_for_its_own_attempt(alice: VpnUser) -> None:
    first, second, *_ = codes_of(alice)
    assert said(try_it(alice, f"w0mbat{first}")) == "allowed"
    assert said(try_it(alice, f"w0mbat{first}")) == "allowed"  # the client offers it to the next host
    again = try_it(alice, f"w0mbat{first}", wg_public_key="key-2")
    assert said(again) == "totp_recovery_used"
    assert isinstance(again, Denied)
    assert "works once" in again.reason
    assert said(try_it(alice, f"w0mbat{second}", wg_public_key="key-3")) == "allowed"
    assert said(try_it(alice, f"w0mbat{code_at(NOW)}", wg_public_key="key-4")) == "allowed"  # the app still counts


def test_of_many_at_the_same_moment_one_passes(alice: VpnUser, monkeypatch: pytest.MonkeyPatch) -> None:
    """All have found the code unused before any of them uses it up."""
    code, real, all_of_them = codes_of(alice)[0], recovery.use, threading.Barrier(4)

    def use(code: RecoveryCode, attempt: str, now: float) -> bool:
        all_of_them.wait(HANGING)
        return real(code, attempt, now)

    monkeypatch.setattr(recovery, "use", use)
    attempts = [partial(try_it, alice, f"w0mbat{code}", wg_public_key=f"key-{number}") for number in range(4)]
    verdicts = together(attempts)
    told = sorted(said(each) for each in verdicts if isinstance(each, Allowed | Denied))
    assert told == ["allowed", "totp_recovery_used", "totp_recovery_used", "totp_recovery_used"]


def test_a_wrong_pin_uses_none_up(alice: VpnUser) -> None:
    code = codes_of(alice)[0]
    assert said(try_it(alice, f"numbat{code}")) == "pin_wrong"
    assert RecoveryCode.objects.filter(used=None).count() == 10
    assert said(try_it(alice, f"w0mbat{code}")) == "allowed"


def test_one_that_is_wrong_or_another_users_is_counted_as_any_guess(alice: VpnUser, company: Company) -> None:
    codes_of(alice)
    bob = enrol(company.hire("bob")[0], "w0mbat", totp=True)
    for code in (codes_of(bob)[0], "aaaaa-aaaaa"):
        assert said(try_it(alice, f"w0mbat{code}")) == "totp_wrong"
    assert alice.wrong_attempts.count == 2


def test_new_ones_void_the_old_and_a_new_authenticator_all(alice: VpnUser) -> None:
    old, new = codes_of(alice)[0], codes_of(alice)[0]
    assert said(try_it(alice, f"w0mbat{old}")) == "totp_wrong"
    enrolments.enrol(alice, "totp", secret=alice.enrolments.get(kind="totp").secret)
    assert said(try_it(alice, f"w0mbat{new}")) == "totp_wrong"
    assert RecoveryCode.objects.count() == 0


def test_none_are_made_for_an_authenticator_that_was_replaced(alice: VpnUser) -> None:
    before = alice.enrolments.get(kind="totp")
    enrol(alice, totp=True)
    with pytest.raises(enrolments.Changed):
        recovery.make(before)
    assert RecoveryCode.objects.count() == 0


def test_the_database_does_not_tell_them(alice: VpnUser) -> None:
    codes = codes_of(alice)
    with database.cursor() as cursor:
        cursor.execute("SELECT * FROM users_recoverycode")
        stored = str(cursor.fetchall())
    assert not any(code in stored or code.replace("-", "") in stored for code in codes)


def test_they_outlive_a_rotation_of_the_keys(alice: VpnUser, settings: LazySettings) -> None:
    code, old = codes_of(alice)[0], settings.FIELD_KEYS
    settings.FIELD_KEYS = [Fernet.generate_key(), *old]
    call_command("rotate_keys")
    settings.FIELD_KEYS = settings.FIELD_KEYS[:1]
    assert said(try_it(alice, f"w0mbat{code}")) == "allowed"


def test_an_administrator_makes_new_ones_and_sees_them_once(alice: VpnUser, client: Client) -> None:
    staff(client, superuser=True)
    url = f"/admin/users/vpnuser/{alice.pk}/do/act_on_factor/"
    response = client.post(url, {"factor": "totp", "action": "new_codes"})
    codes = [code.strip() for code in response.context["codes"]]
    assert len(codes) == 10
    assert "no-store" in response["Cache-Control"]
    page = client.get(f"/admin/users/vpnuser/{alice.pk}/change/").content.decode()
    assert "10 recovery codes left" in page
    assert not any(code in page for code in codes)
    assert said(try_it(alice, f"w0mbat{codes[3]}")) == "allowed"
