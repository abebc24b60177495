"""Passkeys on the user's own page: who may add, show and remove them, and where."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.conf import LazySettings

from core import passkeys
from core.redis_store import redis_client
from tests import attempts
from tests.factories import Company
from tests.passkey_maker import PRESENT, PasskeyMaker
from tests.wgpeers.profiles.own_pages import said_by
from users.models import Enrolment, UserPasskey, VpnUser, WrongAttempts
from wgpeers.models import Decision

from .visits import ORIGIN, OwnPasskeys, a_maker, ask, given

SHOW_FIRST = "Nothing was changed. Show your passkey first: the button is at Passkeys."


@pytest.fixture
def alice(company: Company) -> VpnUser:
    ask(company)
    return company.hire("alice")[0]


@pytest.fixture
def maker(alice: VpnUser) -> PasskeyMaker:
    found = a_maker()
    assert OwnPasskeys(alice).add(found, " My\x00 laptop ") == "Added the passkey “My laptop”."
    return found


def names() -> list[str]:
    return [each.name for each in UserPasskey.objects.all()]


def test_the_first_is_added_where_there_is_nothing_to_prove(alice: VpnUser, maker: PasskeyMaker) -> None:
    page = OwnPasskeys(alice)
    assert names() == ["My laptop"]
    assert "My laptop" in page.text()
    assert Decision.objects.filter(code="own_page_changed").latest("pk").detail == "Added the passkey “My laptop”."


def test_what_the_browser_is_asked_for_a_new_one(alice: VpnUser, maker: PasskeyMaker) -> None:
    page = OwnPasskeys(alice)
    page.show(maker)
    response = page.begin()
    asked = given(response)
    assert asked["authenticatorSelection"]["userVerification"] == "required"
    assert (asked["rp"]["id"], len(asked["excludeCredentials"])) == ("vpn.example.com", 1)
    policy = response["Content-Security-Policy"]
    assert policy.endswith(f"script-src {ORIGIN}/sso/passkeys.js")
    assert "script-src" not in page.browser.get(page.path)["Content-Security-Policy"]


def test_another_one_needs_the_one_that_is_there(alice: VpnUser, maker: PasskeyMaker) -> None:
    thief = OwnPasskeys(alice)
    assert said_by(thief.begin()) == SHOW_FIRST
    owner = OwnPasskeys(alice)
    assert owner.show(maker).startswith("Showed the passkey “My laptop”.")
    assert said_by(thief.begin()) == SHOW_FIRST  # in another visit
    assert owner.add(a_maker(), "key ring") == "Added the passkey “key ring”."
    assert said_by(owner.begin()) == SHOW_FIRST  # something changed


def test_a_pin_is_proven_before_the_first_passkey(alice: VpnUser) -> None:
    attempts.enrol(alice, pin="qu0kka77")
    page = OwnPasskeys(alice)
    assert "this needs your PIN" in said_by(page.begin())
    assert "Second factor refused" in said_by(page.begin(proof_pin="other-one"))
    assert WrongAttempts.objects.get().count == 1
    assert page.add(a_maker(), proof_pin="qu0kka77").startswith("Added")


def test_a_passkey_is_proven_before_anything_else_is_added(company: Company, alice: VpnUser, maker: Any) -> None:
    company.server.factors.create(kind="pin", mode="required")
    page = OwnPasskeys(alice)
    pin = {"pin": "qu0kka77", "again": "qu0kka77"}
    assert said_by(page.factor("pin", "set", **pin)) == SHOW_FIRST
    assert "Show your passkey first" in page.text()
    page.show(maker)
    assert said_by(page.factor("pin", "set", **pin)) == "Your PIN is set."


def test_one_that_was_shown_is_a_proof_for_a_while(alice: VpnUser, maker: PasskeyMaker) -> None:
    page = OwnPasskeys(alice)
    page.show(maker)
    [key] = redis_client().keys("passkey-shown:*")
    assert 0 < redis_client().ttl(key) <= 300
    redis_client().delete(key)
    assert said_by(page.begin()) == SHOW_FIRST


def test_a_proof_by_a_wrong_one_is_refused_and_recorded(alice: VpnUser, maker: PasskeyMaker) -> None:
    page = OwnPasskeys(alice)
    maker.flags = PRESENT
    assert "It must ask for your finger" in page.show(maker)
    refusal = Decision.objects.filter(code="own_page_refused").latest("pk")
    assert (refusal.allowed, refusal.detail) == (False, "passkey_unverified")
    assert "not the answer of a passkey of yours" in page.show(a_maker())
    maker.flags, maker.counter, maker.step = a_maker().flags, 0, 0
    UserPasskey.objects.update(counter=7)
    assert "It is locked now" in page.show(maker)
    assert "None of your passkeys can be used here" in said_by(page.factor("passkey", "ask"))
    assert said_by(page.begin()) == SHOW_FIRST


def test_a_challenge_is_answered_once_and_in_its_visit(alice: VpnUser, maker: PasskeyMaker) -> None:
    maker.step = 0
    page, other = OwnPasskeys(alice), OwnPasskeys(alice)
    answer = maker.get(given(page.factor("passkey", "ask")))
    assert "answered already" in said_by(other.factor("passkey", "show", answer=answer))
    assert said_by(page.factor("passkey", "show", answer=answer)).startswith("Showed")
    assert "answered already" in said_by(page.factor("passkey", "show", answer=answer))
    made = a_maker().create(given(page.begin()))
    page.factor("passkey", "show", answer=made)
    assert names() == ["My laptop"]
    assert said_by(page.factor("passkey", "add", name="b", answer=made)).startswith("Added")
    assert "answered already" in said_by(page.factor("passkey", "add", name="c", answer=made))
    assert names() == ["My laptop", "b"]


@pytest.mark.parametrize(
    "changes", [{"origin": "https://evil.example.com"}, {"site": "example.com"}, {"flags": PRESENT}, {"flags": 4}]
)
def test_a_new_one_that_is_not_right_is_not_kept(alice: VpnUser, changes: dict[str, Any]) -> None:
    assert OwnPasskeys(alice).add(a_maker(**changes)).startswith("The passkey was not added.")
    assert not Enrolment.objects.exists()


@pytest.mark.parametrize("answer", ["", "{}", "[]", "null", "\x00"])
def test_nonsense_is_not_kept(alice: VpnUser, answer: str) -> None:
    page = OwnPasskeys(alice)
    page.begin()
    assert said_by(page.factor("passkey", "add", name="x", answer=answer)).startswith("The passkey was not added.")


def test_of_two_who_add_the_first_one_hears_that_it_is_not_theirs(alice: VpnUser) -> None:
    thief, owner, theirs = OwnPasskeys(alice), OwnPasskeys(alice), a_maker()
    answer = theirs.create(given(thief.begin()))
    owner.add(a_maker(), "owner's")
    assert "not added" in said_by(thief.factor("passkey", "add", name="thief's", answer=answer))
    assert names() == ["owner's"]


def test_the_same_is_not_added_twice_nor_for_somebody_else(
    company: Company, alice: VpnUser, maker: PasskeyMaker
) -> None:
    assert "is there already" in OwnPasskeys(company.hire("bob")[0]).add(maker)
    page = OwnPasskeys(alice)
    page.show(maker)
    assert "is there already" in page.add(maker)
    assert names() == ["My laptop"]


def test_no_more_are_kept_than_may_be(alice: VpnUser, maker: PasskeyMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passkeys, "MOST", 1)
    page = OwnPasskeys(alice)
    page.show(maker)
    assert "There are 1 passkeys already" in said_by(page.begin())


def test_one_is_removed_with_a_proof_and_the_last_one_stays(alice: VpnUser, maker: PasskeyMaker) -> None:
    page = OwnPasskeys(alice)
    page.show(maker)
    page.add(a_maker(), "key ring")
    pk = str(UserPasskey.objects.get(name="key ring").pk)
    assert said_by(page.factor("passkey", "remove", passkey=pk)) == SHOW_FIRST
    page.show(maker)
    assert said_by(page.factor("passkey", "remove", passkey=pk)) == "Removed the passkey “key ring”."
    page.show(maker)
    last = str(UserPasskey.objects.get().pk)
    assert "Your last passkey stays" in said_by(page.factor("passkey", "remove", passkey=last))
    assert names() == ["My laptop"]


@pytest.mark.parametrize("number", ["", "x", "99999999999999999999", "-1", "²"])
def test_none_of_theirs_is_not_removed(company: Company, alice: VpnUser, maker: PasskeyMaker, number: str) -> None:
    bob = OwnPasskeys(company.hire("bob")[0])
    bob.add(a_maker(), "bob's")
    for sent in (number, str(UserPasskey.objects.get(name="My laptop").pk)):
        assert said_by(bob.factor("passkey", "remove", passkey=sent)) == "This passkey is gone already."
    assert len(names()) == 2


@pytest.mark.parametrize("origin", ["https://192.0.2.10", "https://vpn.example.com", "https://other.example.com:8443"])
def test_below_another_name_the_page_says_where_it_works(alice: VpnUser, origin: str) -> None:
    page = OwnPasskeys(alice, origin=origin)
    assert f"open this page below <b>{ORIGIN}</b>" in page.text()
    assert f"Open this same page below {ORIGIN} instead" in said_by(page.begin())


def test_without_a_name_the_page_says_so(alice: VpnUser, settings: LazySettings) -> None:
    settings.API_URLS = ["https://192.0.2.10"]
    page = OwnPasskeys(alice)
    assert "this server has only addresses" in page.text()
    assert "this server has only addresses" in said_by(page.begin())


def test_where_the_administrator_sets_factors_up_there_is_no_button(alice: VpnUser) -> None:
    type(alice.organization).objects.update(own_factors=False)
    page = OwnPasskeys(alice)
    assert "Your administrator decides about them." in page.text()
    assert "Your administrator sets up" in said_by(page.begin())


def test_without_redis_nothing_is_added(alice: VpnUser, maker: PasskeyMaker, settings: LazySettings) -> None:
    page = OwnPasskeys(alice)
    page.show(maker)
    answer = a_maker().create(given(page.begin()))
    settings.REDIS_URL = "unix:///nowhere/redis.sock"
    assert page.factor("passkey", "add", name="x", answer=answer).status_code == 503
    assert names() == ["My laptop"]


def test_the_admin_sees_and_removes_them(alice: VpnUser, maker: PasskeyMaker, admin_client: Any) -> None:
    UserPasskey.objects.update(locked=UserPasskey.objects.get().created)
    shown = admin_client.get(f"/admin/users/vpnuser/{alice.pk}/change/").content.decode()
    assert "My laptop" in shown
    assert "there may be a copy" in shown


def test_an_answer_says_nothing_of_its_key_in_the_decisions(alice: VpnUser, maker: PasskeyMaker) -> None:
    page = OwnPasskeys(alice)
    page.show(maker)
    texts = json.dumps(list(Decision.objects.values_list("detail", "layers")))
    assert UserPasskey.objects.get().credential_id not in texts
