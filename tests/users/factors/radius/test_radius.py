"""RADIUS with FreeRADIUS: what is right, wrong, used, expired and somebody else's; codes, challenges and attributes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.test import Client

from servers.policy import policy_of
from tests.admin_site import errors, messages, send, staff
from tests.attempts import code_at, enrol
from tests.factories import Company, HostStandIn
from tests.protocol_client import NOW, make_request, open_answer, plaintext
from users.factors.wanted import profile_flags
from users.models import Provider, VpnUser
from wgpeers.lifecycle.codes import explain
from wgpeers.models import Decision

from .freeradius import SECRET, FreeRadius
from .people import SILENT, ask_radius, outcome

PASSWORD = "open sesame"


@pytest.fixture(scope="module")
def radius() -> Iterator[FreeRadius]:
    with FreeRadius() as running:
        yield running


@pytest.fixture
def alice(company: Company) -> VpnUser:
    return company.hire("alice")[0]


def test_the_right_password_passes_and_no_other(company: Company, alice: VpnUser, radius: FreeRadius) -> None:
    bob = company.hire("bob")[0]
    ask_radius(company.server, radius.address)
    assert outcome(alice, PASSWORD) == "allowed"
    assert outcome(bob, "bob's own") == "allowed"
    assert outcome(bob, PASSWORD) == outcome(alice, "bob's own") == "radius_wrong"
    assert outcome(alice, PASSWORD.upper()) == "radius_wrong"
    assert outcome(alice, "") == "factor_missing"
    assert outcome(company.hire("nobody")[0], PASSWORD) == "radius_wrong"


def test_an_account_that_expired_is_refused(company: Company, radius: FreeRadius) -> None:
    ask_radius(company.server, radius.address)
    assert outcome(company.hire("erin")[0], PASSWORD) == "radius_wrong"


def test_a_code_that_is_good_once_passes_again_for_its_attempt_alone(company: Company, radius: FreeRadius) -> None:
    dora = company.hire("dora")[0]
    ask_radius(company.server, radius.address, code="joined")
    once = f"271828{PASSWORD}"  # as some clients join them; the server is sent the other way round
    assert outcome(dora, once) == "allowed"
    assert outcome(dora, once) == "allowed"  # the client offers it to the next host
    assert outcome(dora, once, wg_public_key="key-2") == "radius_wrong"
    assert outcome(dora, once, device_id="device-2") == "radius_wrong"
    assert outcome(dora, f"{PASSWORD}27182") == "radius_unusable"


def test_a_challenge_is_answered_with_the_code(company: Company, alice: VpnUser, radius: FreeRadius) -> None:
    carol = company.hire("carol")[0]
    ask_radius(company.server, radius.address, code="challenge")
    assert outcome(carol, f"{PASSWORD}314159") == "allowed"
    assert outcome(carol, f"314159{PASSWORD}", wg_public_key="key-2") == "allowed"
    assert outcome(carol, f"{PASSWORD}314158") == "radius_wrong"
    assert outcome(carol, "close sesame314159") == "radius_wrong"
    # She has a password alone there: that nobody looked at her code must not pass for a second factor.
    assert outcome(alice, f"{PASSWORD}314159") == "radius_no_challenge"


def test_a_challenge_that_nobody_can_be_shown_is_refused_and_said(company: Company, radius: FreeRadius) -> None:
    ask_radius(company.server, radius.address)
    assert outcome(company.hire("carol")[0], PASSWORD) == "radius_challenge"


def test_servers_are_told_who_connects_from_where(company: Company, radius: FreeRadius) -> None:
    frank = company.hire("frank")[0]
    ask_radius(company.server, radius.address, name_from="email", nas_identifier="gate")
    assert outcome(frank, PASSWORD) == "radius_no_email"
    frank.email = "frank@example.com"
    frank.save()
    assert outcome(frank, PASSWORD) == "allowed"
    assert outcome(frank, PASSWORD, address="198.51.100.8", wg_public_key="key-2") == "radius_wrong"


@pytest.mark.parametrize("password", ["a\0b", "\0", "x" * 129, "é" * 65])
def test_what_a_packet_cannot_hold_is_refused(
    company: Company, alice: VpnUser, radius: FreeRadius, password: str
) -> None:
    ask_radius(company.server, radius.address)
    assert outcome(alice, password) == "radius_unusable"


@pytest.mark.parametrize("code_first", [False, True])
def test_a_wrong_password_does_not_use_up_the_code_beside_it(
    company: Company, alice: VpnUser, radius: FreeRadius, code_first: bool
) -> None:
    enrol(alice, totp=True)
    ask_radius(company.server, radius.address, totp=True)
    assert profile_flags(alice, policy_of(company.server), NOW).password_mode == "otp_password"
    code = code_at(NOW)

    def typed(password: str) -> str:
        return code + password if code_first else password + code

    assert outcome(alice, typed("wrong"), wg_public_key="key-1") == "radius_wrong"
    assert outcome(alice, typed(PASSWORD), wg_public_key="key-2") == "allowed"
    assert outcome(alice, typed(PASSWORD), wg_public_key="key-3") == "totp_used"


@pytest.mark.parametrize(("code", "mode"), [("none", "password"), ("joined", "otp_password")])
def test_clients_are_told_what_to_ask_for(company: Company, alice: VpnUser, code: str, mode: str) -> None:
    ask_radius(company.server, "192.0.2.1", code=code)
    assert profile_flags(alice, policy_of(company.server), NOW).password_mode == mode


def test_a_server_that_does_not_sign_its_answers_is_not_believed(
    company: Company, alice: VpnUser, no_more_time_after_a_lie: None
) -> None:
    with FreeRadius(signing=False) as old:
        ask_radius(company.server, old.address)
        assert outcome(alice, PASSWORD) == outcome(alice, "wrong") == "radius_bad_answer"


def test_a_server_with_another_secret_is_silent(company: Company, alice: VpnUser, radius: FreeRadius) -> None:
    ask_radius(company.server, radius.address, secret="another secret", **SILENT)
    assert outcome(alice, PASSWORD) == "radius_unavailable"


@pytest.mark.parametrize(("skip", "expected"), [("refuse", "radius_unavailable"), ("skip", "allowed")])
def test_a_server_that_is_down_lets_nobody_in_unless_its_administrator_said_so(
    company: Company, alice: VpnUser, skip: str, expected: str
) -> None:
    ask_radius(company.server, "127.0.0.1:9")
    company.server.factors.update(if_unavailable=skip)
    assert outcome(alice, PASSWORD) == expected


def test_the_log_says_what_the_server_said(company: Company, radius: FreeRadius, host: HostStandIn) -> None:
    ask_radius(company.server, radius.address)
    identity = company.hire("gina")[1]
    request = make_request(identity, plaintext(password=PASSWORD))
    answer = open_answer(request.send().json(), identity, request.box_private_key)
    assert (answer["allow"], answer["reason"]) == (False, "Second factor refused")
    decision = Decision.objects.latest("pk")
    assert decision.code == "radius_wrong"
    assert decision.detail == "<b>Too many attempts</b>"
    assert explain(decision.code, decision.detail).startswith("The RADIUS server refused")
    assert PASSWORD not in str(Decision.objects.values().get())


@pytest.mark.django_db(transaction=True)
def test_a_service_is_set_up_and_tried_on_its_page(company: Company, client: Client, radius: FreeRadius) -> None:
    staff(client, superuser=True)
    add = "/admin/users/provider/add/?kind=radius"
    filled = {
        "name": "Head office",
        "servers": f"{radius.address}\n",
        "shared_secret": SECRET,
        "timeout": 30,
        "patience": 30,
    }
    for wrong in ({"servers": "a:b:c"}, {"servers": "radius:0"}, {"shared_secret": "short"}, {"patience": 29}):
        assert errors(send(client, add, **filled | wrong)), wrong
    assert errors(send(client, add, **filled)) == {}
    page = f"/admin/users/provider/{Provider.objects.get().pk}"
    assert "each server gave a signed answer" in messages(client, f"{page}/do/try_out/", {})
    assert errors(send(client, f"{page}/change/", servers=f"{radius.address}\n127.0.0.1:9")) == {}
    assert "127.0.0.1:9 is silent" in messages(client, f"{page}/do/try_out/", {})
    assert SECRET not in client.get(f"{page}/change/").content.decode()
