"""The user's own page: who is let in and for how long, and what becomes of their factors, devices and connections."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client

from core.clock import moment
from tests.attack import unchanged
from tests.attempts import ask, code_at, enrol, wrong_code
from tests.conftest import Clock
from tests.connection_rows import live
from tests.factories import Company, HostStandIn
from tests.protocol_client import NOW
from users.factors import proofs
from users.factors.pin import own
from users.models import Device, Enrolment, Organization, VpnUser, WrongAttempts
from wgpeers.lifecycle import for_users
from wgpeers.lifecycle.codes import SENTENCES, factor_codes
from wgpeers.models import Decision, EndReason, ProfileLink
from wgpeers.profiles import links, own_session

from .own_pages import OwnPage, codes_shown, hidden, revoke, said_by

PIN, NEW_PIN = "w0mbat", "qu0kka77"


@pytest.fixture
def alice(company: Company) -> VpnUser:
    ask(company.server, pin="required", totp=True)
    return company.hire("alice")[0]


# Who is let in


def test_the_session_is_a_signed_cookie_for_this_link_alone(alice: VpnUser, settings: LazySettings) -> None:
    settings.SESSION_COOKIE_SECURE = True
    link = links.create(alice, NOW)
    path = f"/k/{link.short_id.reveal()}"
    cookie = Client().post(path).cookies["own_page"]
    said = {name: cookie[name] for name in ("path", "httponly", "samesite", "max-age", "secure")}
    assert said == {"path": path, "httponly": True, "samesite": "Strict", "max-age": 1200, "secure": True}
    assert "sessionid" not in Client().post(path).cookies


def test_a_preview_begins_no_session(alice: VpnUser) -> None:
    link = links.create(alice, NOW)
    browser = Client()
    with unchanged():
        assert "Before you can connect" not in browser.get(f"/k/{link.short_id.reveal()}").content.decode()
    assert own_session.COOKIE not in browser.cookies


def test_it_lasts_twenty_minutes_also_where_the_short_half_has_ended(alice: VpnUser, fixed_clock: Clock) -> None:
    page = OwnPage(alice)
    assert "/ku/" in page.text()
    fixed_clock.now = NOW + 1199
    assert "Before you can connect" in page.text()
    assert "/ku/" not in page.text()  # the import address has ended
    fixed_clock.now = NOW + 1200
    with unchanged():
        assert page.browser.get(page.path).status_code == 404
        assert page.factor("pin", "set", pin=PIN, again=PIN).status_code == 404


DEATHS: dict[str, Callable[[ProfileLink], object]] = {
    "revoked": lambda link: revoke(link),
    "expired": lambda link: ProfileLink.objects.update(expires=moment(NOW)),
    "the user is disabled": lambda link: VpnUser.objects.update(enabled=False),
    "the organization is disabled": lambda link: Organization.objects.update(enabled=False),
    "used up": lambda link: ProfileLink.objects.update(one_time=True, used=link.created),
}


@pytest.mark.parametrize("death", DEATHS.values(), ids=DEATHS)
def test_the_end_of_the_link_ends_the_session_at_once(alice: VpnUser, death: Callable[[ProfileLink], object]) -> None:
    page = OwnPage(alice)
    death(page.link)
    with unchanged():
        assert page.browser.get(page.path).status_code == 404
        assert page.factor("pin", "set", pin=PIN, again=PIN).status_code == 404


def test_another_users_session_opens_nothing_of_this_one(company: Company, alice: VpnUser) -> None:
    """Browsers keep the cookie to its path; whoever sends it elsewhere all the same has nothing by it."""
    mine, other = OwnPage(alice), OwnPage(company.hire("charlie")[0])
    other.path = mine.path
    with unchanged():
        assert "Before you can connect" not in other.text()
        assert other.factor("pin", "set", pin=PIN, again=PIN).status_code == 404


def test_a_forged_or_changed_cookie_is_none(alice: VpnUser) -> None:
    page = OwnPage(alice)
    good = page.browser.cookies[own_session.COOKIE].value
    for bad in ("", "x", good[:-1] + ("A" if good[-1] != "A" else "B"), good + "x"):
        page.browser.cookies[own_session.COOKIE] = bad
        assert "Before you can connect" not in page.text()


@pytest.mark.parametrize("do", ["factor", "rename_device", "revoke_device", "end_connection", "end_link"])
def test_every_button_needs_the_token_of_its_form(alice: VpnUser, do: str) -> None:
    page = OwnPage(alice)
    with unchanged():
        assert page.send_without_token(do, factor="pin", action="set", pin=PIN, again=PIN).status_code == 403


def test_buttons_are_limited_by_address_as_views_are(alice: VpnUser, settings: LazySettings) -> None:
    page = OwnPage(alice)
    settings.LINK_VIEWS_PER_MINUTE = 3
    assert [page.send("nothing").status_code for _ in range(2)] == [404, 429]


def test_what_the_page_says_comes_from_us_alone(alice: VpnUser) -> None:
    page = OwnPage(alice)
    assert "Call 555" not in page.browser.get(f"{page.path}?said=Call+555").content.decode()
    assert said_by(page.browser.get(f"{page.path}?said=Call+555")) == ""


def test_its_user_can_end_the_link(alice: VpnUser) -> None:
    page = OwnPage(alice)
    assert "This link is ended" in page.send("end_link").content.decode()
    assert page.browser.get(page.path).status_code == 404
    assert Client().get(f"/key/{page.link.key_id.reveal()}.tar").status_code == 404


# PIN


def test_the_first_opening_asks_for_a_pin_where_a_server_wants_one(company: Company, alice: VpnUser) -> None:
    company.server.factors.filter(kind="pin").update(settings={"shortest": 8})
    page = OwnPage(alice)
    assert [part["kind"] for part in page.first.context["to_do"]] == ["pin", "totp"]
    assert "8 to 64 characters" in said_by(page.factor("pin", "set", pin=PIN, again=PIN))
    assert "too easy" in said_by(page.factor("pin", "set", pin="password123", again="password123"))
    assert "not the same" in said_by(page.factor("pin", "set", pin=NEW_PIN, again=f"{NEW_PIN}x"))
    assert not alice.enrolments.exists()
    assert said_by(page.factor("pin", "set", pin=NEW_PIN, again=NEW_PIN)) == "Your PIN is set."
    assert alice.enrolments.get().hash.startswith("argon2")
    assert "Before you can connect" in page.text()  # there is TOTP yet


def test_what_no_server_asks_is_not_offered(company: Company, alice: VpnUser) -> None:
    ask(company.server)
    page = OwnPage(alice)
    assert page.first.context["parts"] == page.first.context["to_do"] == []
    assert page.factor("pin", "set", pin=PIN, again=PIN).status_code == 404


def test_a_pin_is_changed_with_the_old_one(alice: VpnUser) -> None:
    page = OwnPage(enrol(alice, PIN))
    before = alice.enrolments.get()
    for proof in ({}, {"proof_pin": ""}, {"proof_pin": "numbat"}):
        assert "Nothing was changed" in said_by(page.factor("pin", "set", pin=NEW_PIN, again=NEW_PIN, **proof))
    assert alice.enrolments.get() == before
    done = page.factor("pin", "set", pin=NEW_PIN, again=NEW_PIN, proof_pin=PIN)
    assert said_by(done) == "Your PIN is changed."
    assert PIN not in str(done.redirect_chain)
    assert list(Decision.objects.order_by("pk").values_list("code", "detail")) == [
        ("own_page_opened", ""),
        ("own_page_refused", "pin_wrong"),
        ("own_page_changed", "Your PIN is changed."),
    ]


def test_wrong_old_pins_are_counted_with_those_of_connects(alice: VpnUser, settings: LazySettings) -> None:
    settings.ATTEMPTS_PER_USER = 2
    page = OwnPage(enrol(alice, PIN))
    for _ in range(2):
        page.factor("pin", "set", pin=NEW_PIN, again=NEW_PIN, proof_pin="numbat")
    assert WrongAttempts.objects.get().count == 2
    assert "Too many attempts" in said_by(page.factor("pin", "set", pin=NEW_PIN, again=NEW_PIN, proof_pin=PIN))


def test_of_two_who_set_the_first_pin_at_the_same_moment_one_hears_of_it(
    alice: VpnUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one's comes between the reading and the writing."""
    page, real = OwnPage(alice), proofs.prove

    def meanwhile(*arguments: Any, **more: Any) -> str:
        enrol(alice, PIN)
        return real(*arguments, **more)

    monkeypatch.setattr(own, "prove", meanwhile)
    assert "was not set" in said_by(page.factor("pin", "set", pin=NEW_PIN, again=NEW_PIN, proof_pin=PIN))
    assert Enrolment.objects.count() == 1


# TOTP


def begun(page: OwnPage, **proofs: str) -> tuple[str, str]:
    """The new secret and what the form carries on, of an authenticator that is being set up."""
    response = page.factor("totp", "begin", **proofs)
    found = re.search(r'id="totp-secret">(\w+)<', response.content.decode())
    assert found, said_by(response)
    assert "no-store" in response["Cache-Control"]
    return found[1], hidden(response, "pending")


def test_an_authenticator_counts_once_its_first_code_came(alice: VpnUser) -> None:
    page = OwnPage(alice)
    secret, pending = begun(page)
    assert secret not in pending
    assert not alice.enrolments.exists()
    wrong = page.factor("totp", "confirm", pending=pending, code="000000")
    assert "not the code" in said_by(wrong)
    assert secret not in wrong.content.decode()  # shown once
    codes = codes_shown(page.factor("totp", "confirm", pending=hidden(wrong, "pending"), code=code_at(NOW, secret)))
    assert len(codes) == 10
    enrolment = alice.enrolments.get()
    assert (enrolment.kind, enrolment.secret.reveal()) == ("totp", secret)
    assert enrolment.counter == NOW // 30  # and does not pass again
    text = page.text()
    assert "10 recovery codes left" in text
    assert not any(each in text for each in (secret, *codes))


def test_what_was_begun_is_good_for_nobody_else_nor_later_nor_twice(
    company: Company, alice: VpnUser, fixed_clock: Clock
) -> None:
    page, other = OwnPage(alice), OwnPage(company.hire("charlie")[0])
    secret, pending = begun(page)
    again = OwnPage(alice)
    for elsewhere in (other, again):
        assert "Begin anew" in said_by(elsewhere.factor("totp", "confirm", pending=pending, code=code_at(NOW, secret)))
    fixed_clock.now = NOW + 601
    assert "Begin anew" in said_by(page.factor("totp", "confirm", pending=pending, code=code_at(NOW + 601, secret)))
    fixed_clock.now = NOW
    for wrong in ("", "x", page.link.key_id.stored, alice.sync_secret.stored):
        assert "Begin anew" in said_by(page.factor("totp", "confirm", pending=wrong, code=code_at(NOW, secret)))
    assert not Enrolment.objects.exists()
    page.factor("totp", "confirm", pending=pending, code=code_at(NOW, secret))
    assert "Begin anew" in said_by(page.factor("totp", "confirm", pending=pending, code=code_at(NOW, secret)))
    assert Enrolment.objects.count() == 1


def test_it_is_set_up_anew_with_pin_and_code_or_pin_and_recovery_code(alice: VpnUser, fixed_clock: Clock) -> None:
    page = OwnPage(enrol(alice, PIN, totp=True))
    first = alice.enrolments.get(kind="totp")
    refused = [
        {},
        {"proof_totp": code_at(NOW)},
        {"proof_pin": PIN},
        {"proof_pin": "numbat", "proof_totp": code_at(NOW)},
        {"proof_pin": PIN, "proof_totp": wrong_code()},
    ]
    for offered in refused:
        assert "Nothing was changed" in said_by(page.factor("totp", "begin", **offered))
    secret, pending = begun(page, proof_pin=PIN, proof_totp=code_at(NOW))
    assert "Wait for the next code" in said_by(page.factor("totp", "begin", proof_pin=PIN, proof_totp=code_at(NOW)))
    assert alice.enrolments.get(kind="totp") == first  # until the new one's code came
    codes = codes_shown(page.factor("totp", "confirm", pending=pending, code=code_at(NOW, secret)))
    assert alice.enrolments.get(kind="totp") != first
    begun(page, proof_pin=PIN, proof_totp=codes[0].upper())
    assert "works once" in said_by(page.factor("totp", "begin", proof_pin=PIN, proof_totp=codes[0]))
    assert "totp_recovery_code: 9 left" in Decision.objects.filter(code="own_page_changed").latest("pk").detail
    assert "9 recovery codes left" in page.text()


def test_new_recovery_codes_need_the_proofs_and_void_the_old(alice: VpnUser) -> None:
    page = OwnPage(enrol(alice, PIN, totp=True))
    assert "Nothing was changed" in said_by(page.factor("totp", "new_codes", proof_pin=PIN))
    old = codes_shown(page.factor("totp", "new_codes", proof_pin=PIN, proof_totp=code_at(NOW)))
    new = codes_shown(page.factor("totp", "new_codes", proof_pin=PIN, proof_totp=old[0]))
    assert len({*old, *new}) == 20
    assert "Nothing was changed" in said_by(page.factor("totp", "new_codes", proof_pin=PIN, proof_totp=old[1]))


def test_who_has_a_pin_shows_it_before_they_add_an_authenticator(alice: VpnUser) -> None:
    page = OwnPage(enrol(alice, PIN))
    assert "needs your PIN" in said_by(page.factor("totp", "begin"))
    begun(page, proof_pin=PIN)


def test_an_administrator_can_keep_factors_to_themselves(alice: VpnUser) -> None:
    Organization.objects.update(own_factors=False)
    page = OwnPage(alice)
    assert "Your administrator sets it" in page.text()
    for kind, action in (("pin", "set"), ("totp", "begin"), ("totp", "confirm"), ("totp", "new_codes")):
        assert "administrator" in said_by(page.factor(kind, action, pin=PIN, again=PIN))
    assert not Enrolment.objects.exists()


# Devices, connections, refusals


@pytest.fixture
def laptop(alice: VpnUser) -> Device:
    return Device.objects.create(
        user=alice, device_id="d1", name="<b>laptop", first_seen=moment(NOW), last_seen=moment(NOW)
    )


def test_a_device_is_renamed_whatever_it_calls_itself(alice: VpnUser, laptop: Device) -> None:
    page = OwnPage(alice)
    assert "<b>laptop" not in page.browser.get(page.path).content.decode()
    page.send("rename_device", device="d1", name="Work")
    assert "Work" in page.text()
    for bad in ("x" * 65, "a\nb"):
        assert "not renamed" in said_by(page.send("rename_device", device="d1", name=bad))
    laptop.refresh_from_db()
    assert str(laptop) == "Work"


def test_of_a_stranger_nothing_is_renamed_revoked_or_ended(
    company: Company, alice: VpnUser, laptop: Device, host: HostStandIn
) -> None:
    row = live(company, alice, device_id="d1")
    stranger = OwnPage(company.hire("charlie")[0])
    with unchanged():
        assert "no such device" in said_by(stranger.send("rename_device", device="d1", name="mine"))
        assert "no such device" in said_by(stranger.send("revoke_device", device="d1"))
        assert "had ended" in said_by(stranger.send("end_connection", connection=row.public_id))


def test_refusals_are_told_in_words_that_help_no_guesser(alice: VpnUser) -> None:
    for number, code in enumerate(("pin_wrong", "totp_wrong", "user_disabled", EndReason.SILENT)):
        Decision.objects.create(
            time=moment(NOW + number), user=alice, user_name="alice", server_name="Office", layer="x", code=code
        )
    text = OwnPage(alice).text()
    assert text.count(for_users.FACTOR) == 2
    assert "Your account was disabled." in text
    assert "wrong" not in text.partition("What was refused")[2]
    assert "No ping" not in text


def test_users_hear_of_no_factor_which_secret_was_wrong() -> None:
    told = {for_users.explain(code) for code in factor_codes()}
    assert told == {for_users.FACTOR, for_users.NOT_ENROLLED, for_users.NOBODY_CAN_SAY}
    assert {for_users.explain(f"{kind}_{what}") for kind in ("pin", "totp") for what in ("wrong", "used", "clock")} == {
        for_users.FACTOR
    }
    assert all(for_users.explain(str(code)) for code in SENTENCES)
    assert for_users.SENTENCES.keys() <= {*map(str, SENTENCES)}
