"""YubiKeys on the user's own page, with Debian's validation server and what keys really type."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from core.crypto import Secret
from servers.models import ServerFactor
from tests import attempts
from tests.factories import Company
from tests.users.factors.yubiserver import Key, Yubiserver, yubiserver
from tests.wgpeers.profiles.own_pages import OwnPage, said_by
from users.factors.base import AskedFactor, Case, Denied, Unavailable
from users.factors.registry import FACTORS, load
from users.factors.yubikey.enrolment import add_key, keys_of
from users.models import Enrolment, Provider, VpnUser, WrongAttempts

FIRST, SECOND, THIRD = "cccccccccccb", "cccccccccccd", "ccccccccccce"


@pytest.fixture(scope="module")
def keys() -> dict[str, Key]:
    return {public: Key(public) for public in (FIRST, SECOND, THIRD)}


@pytest.fixture(scope="module")
def server(keys: dict[str, Key]) -> Iterator[Yubiserver]:
    with yubiserver(*keys.values()) as running:
        yield running


def a_service(server: Yubiserver, name: str = "keys") -> Provider:
    says = {"servers": server.url, "client_id": server.client_id}
    secrets = Secret.of(json.dumps({"secret_key": server.key}))
    return Provider.objects.create(kind="yubikey", name=name, settings=says, secrets=secrets)


@pytest.fixture
def alice(company: Company, server: Yubiserver) -> VpnUser:
    company.server.factors.all().delete()
    ServerFactor.objects.create(server=company.server, kind="yubikey")
    a_service(server)
    return company.hire("alice")[0]


def has(user: VpnUser) -> dict[str, str]:
    return keys_of(Enrolment.objects.filter(user=user, kind="yubikey").first())


def test_the_first_is_added_by_touching_it(alice: VpnUser, keys: dict[str, Key]) -> None:
    page = OwnPage(alice)
    assert "Before you can connect" in page.text()
    assert "not what a YubiKey types" in said_by(page.factor("yubikey", "add", otp="cccc"))
    assert "does not know" in said_by(page.factor("yubikey", "add", otp=FIRST + "b" * 32))
    otp = keys[FIRST].touch()
    assert said_by(page.factor("yubikey", "add", otp=otp.upper(), name=" Mine\n")) == "Added the YubiKey “Mine”."
    assert has(alice) == {FIRST: "Mine"}
    assert "Mine" in page.text()


def test_another_one_needs_a_touch_of_one_that_is_there(alice: VpnUser, keys: dict[str, Key]) -> None:
    add_key(alice, FIRST, "Mine")
    page = OwnPage(alice)
    new = keys[SECOND].touch()
    assert "this needs your YubiKey" in said_by(page.factor("yubikey", "add", otp=new))
    wrong = page.factor("yubikey", "add", otp=new, proof_yubikey=keys[THIRD].touch())
    assert "Second factor refused" in said_by(wrong)
    assert WrongAttempts.objects.get().count == 1
    used = keys[FIRST].touch()
    # The proof is used up, the new key's word is not: it was not looked at before all was proven.
    assert said_by(page.factor("yubikey", "add", otp=new, proof_yubikey=used)) == f"Added the YubiKey “{SECOND}”."
    again = page.factor("yubikey", "add", otp=keys[THIRD].touch(), proof_yubikey=used)
    assert "Second factor refused" in said_by(again)
    assert list(has(alice)) == [FIRST, SECOND]


def test_what_is_there_already_uses_nothing_up(alice: VpnUser, keys: dict[str, Key]) -> None:
    add_key(alice, FIRST)
    page, proof = OwnPage(alice), keys[FIRST].touch()
    same = page.factor("yubikey", "add", otp=keys[FIRST].touch(), proof_yubikey=proof)
    assert said_by(same) == "You have this YubiKey already."
    added = page.factor("yubikey", "add", otp=keys[SECOND].touch(), proof_yubikey=keys[FIRST].touch())
    assert said_by(added).startswith("Added")


def test_a_pin_and_a_key_are_both_proven_and_a_wrong_pin_costs_no_touch(alice: VpnUser, keys: dict[str, Key]) -> None:
    attempts.enrol(alice, pin="qu0kka77")
    add_key(alice, FIRST)
    page, proof, new = OwnPage(alice), keys[FIRST].touch(), keys[SECOND].touch()
    for pin, said in (("other-one", "Second factor refused"), ("qu0kka77", "Added the YubiKey")):
        response = page.factor("yubikey", "add", otp=new, proof_yubikey=proof, proof_pin=pin)
        assert said in said_by(response)


def test_one_is_removed_with_a_touch_and_the_last_one_stays(alice: VpnUser, keys: dict[str, Key]) -> None:
    add_key(alice, FIRST, "Mine")
    add_key(alice, SECOND, "Lost")
    page = OwnPage(alice)
    assert "this needs your YubiKey" in said_by(page.factor("yubikey", "remove", key=SECOND))
    gone = page.factor("yubikey", "remove", key=SECOND, proof_yubikey=keys[FIRST].touch())
    assert said_by(gone) == "Removed the YubiKey “Lost”."
    assert said_by(page.factor("yubikey", "remove", key=SECOND)) == "This YubiKey is gone already."
    last = page.factor("yubikey", "remove", key=FIRST, proof_yubikey=keys[FIRST].touch())
    assert "Your last YubiKey stays" in said_by(last)


def test_of_several_services_the_one_that_a_server_names_judges_the_proof(
    alice: VpnUser, server: Yubiserver, keys: dict[str, Key]
) -> None:
    add_key(alice, FIRST)
    other = a_service(replace(server, key="d3Jvbmc="), "others")
    page = OwnPage(alice)

    def add() -> str:
        return said_by(page.factor("yubikey", "add", otp=keys[SECOND].touch(), proof_yubikey=keys[FIRST].touch()))

    ServerFactor.objects.update(provider=other)
    assert "cannot be checked at the moment" in add()
    ServerFactor.objects.update(provider=Provider.objects.exclude(pk=other.pk).get())
    assert add().startswith("Added")


@pytest.mark.parametrize("kind", [kind for kind in FACTORS if load(kind).provider_form])
def test_a_claim_without_a_provider_is_no_pass(company: Company, kind: str) -> None:
    """A check that passes is not a pass, whichever door forgot to say who is asked."""
    alice = company.hire("alice", email="alice@example.com")[0]
    add_key(alice, FIRST)
    case = Case(alice, "s", Enrolment.objects.get(), AskedFactor(kind), attempts.an_attempt(), 0)
    assert isinstance(load(kind).claim(case, FIRST + "b" * 32), Denied | Unavailable)
