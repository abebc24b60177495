"""Duo: a request on the phone and passcodes, against a stand-in of the service that checks real signatures."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.exceptions import ValidationError

from core.crypto import Secret
from core.redis_store import redis_client
from servers.models import ServerFactor
from servers.policy import policy_of
from tests.attempts import an_attempt, enrol
from tests.counterpart import Counterpart, Said, serving
from tests.factories import Company
from tests.protocol_client import NOW
from tests.users.factors.duo_service import ALLOW, IKEY, SKEY, DuoService, fail, ok
from users.authorize import MustWait, authorize
from users.factors import pushes
from users.factors.duo.api import Application, encoded, signed
from users.factors.duo.factor import SENTENCES
from users.factors.duo.form import DuoApplication
from users.factors.panels import NotDone
from users.factors.providers import config_of
from users.factors.registry import load
from users.factors.wanted import profile_flags
from users.models import Provider, VpnUser

KINDS = ("duo", "duo_otp")


@pytest.fixture
def duo() -> DuoService:
    return DuoService(NOW)


@pytest.fixture
def service(duo: DuoService) -> Iterator[Counterpart]:
    with serving(duo) as counterpart:
        yield counterpart


@pytest.fixture
def alice(company: Company, service: Counterpart) -> VpnUser:
    company.server.factors.all().delete()
    for kind in KINDS:
        a_provider(kind, service.url)
    return company.hire("alice", email="alice@example.com")[0]


def a_provider(kind: str, address: str, secret: str = SKEY, **settings: str) -> Provider:
    says = {"address": address, "integration_key": IKEY, **settings}
    secrets = Secret.of(json.dumps({"secret_key": secret}))
    return Provider.objects.create(kind=kind, name=kind, settings=says, secrets=secrets)


def ask(company: Company, kind: str, **how: str) -> None:
    ServerFactor.objects.create(server=company.server, kind=kind, **how)


def code(company: Company, user: VpnUser, typed: str = "", **attempt: Any) -> str:
    fresh = VpnUser.objects.select_related("organization").get(pk=user.pk)
    return getattr(authorize(fresh, policy_of(company.server), an_attempt(typed, **attempt), NOW), "code", "allowed")


def said(result: str, status: str) -> Said:
    return ok(result=result, status=status, status_msg="…")


def test_signatures_are_those_of_the_documentation() -> None:
    application = Application("https://API-TEST.example", IKEY, SKEY)
    parameters = {"username": "u ser", "factor": "push"}
    assert encoded(parameters) == "factor=push&username=u%20ser"
    header = signed(application, "POST", "/auth/v2/auth", parameters, "Tue, 21 Aug 2012 17:29:18 -0000")
    digest = base64.b64decode(header.removeprefix("Basic ")).decode().removeprefix(f"{IKEY}:")
    assert digest.startswith("e3bd813c48ac995c")
    assert digest.endswith("49cf59e8a6")
    assert "secretsecret" not in repr(application)


def test_a_yes_on_the_phone_lets_in_and_says_for_what_it_was(company: Company, alice: VpnUser, duo: DuoService) -> None:
    ask(company, "duo")
    assert profile_flags(alice, policy_of(company.server), NOW).push_auth_ttl == pushes.GONE
    assert profile_flags(alice, policy_of(company.server), NOW).password_mode is None
    assert code(company, alice) == "allowed"
    assert [path for path, _ in duo.asked] == ["/auth/v2/preauth", "/auth/v2/auth"]
    sent = duo.asked[-1][1]
    assert (sent["username"], sent["factor"], sent["device"]) == ("alice@example.com", "push", "auto")
    assert (sent["ipaddr"], sent["type"], sent["display_username"]) == ("198.51.100.7", "VPN connection", "alice")


def a_device(*capabilities: str) -> dict[str, Any]:
    return {"device": "DP1", "type": "phone", "capabilities": ["auto", *capabilities]}


@pytest.mark.parametrize(
    ("by", "devices", "factor"),
    [
        ("push", [a_device("push", "phone")], "push"),
        ("push", [a_device("phone", "sms")], ""),
        ("phone", [a_device("push", "phone")], "phone"),
        ("phone", [a_device("push")], ""),
        ("either", [a_device("phone"), a_device("push")], "push"),
        ("either", [a_device("phone", "sms")], "phone"),
        ("either", [a_device("sms", "mobile_otp")], ""),
    ],
)
def test_duo_asks_in_the_way_that_the_server_says_and_the_user_has(
    company: Company, alice: VpnUser, duo: DuoService, by: str, devices: list[Any], factor: str
) -> None:
    row = ServerFactor(server=company.server, kind="duo", settings={"by": by})
    row.full_clean()
    row.save()
    duo.preauth = lambda sent: ok(result="auth", status_msg="", devices=devices)
    assert code(company, alice) == ("allowed" if factor else "duo_no_device")
    sent = dict(duo.asked).get("/auth/v2/auth", {})
    assert (sent.get("factor", ""), sent.get("device", "")) == (factor, "auto" if factor else "")
    assert ("type" in sent) == (factor == "push")


@pytest.mark.parametrize(
    ("status", "outcome"), [("deny", "rejected"), ("timeout", "expired"), ("fraud", "fraud"), ("answered", "rejected")]
)
def test_nothing_but_a_key_that_is_pressed_on_the_phone_lets_in(
    company: Company, alice: VpnUser, duo: DuoService, status: str, outcome: str
) -> None:
    ServerFactor.objects.create(server=company.server, kind="duo", settings={"by": "phone"})
    duo.preauth = lambda sent: ok(result="auth", status_msg="", devices=[a_device("phone")])
    duo.auth = lambda sent: said("deny", status)
    assert code(company, alice) == f"duo_{outcome}"
    assert not redis_client().exists(f"push:{alice.public_id}")


def test_no_other_way_can_be_said(company: Company, alice: VpnUser) -> None:
    with pytest.raises(ValidationError, match="Duo asks by"):
        ServerFactor(server=company.server, kind="duo", settings={"by": "sms"}).full_clean()


def test_what_passed_for_an_attempt_asks_nobody_again_for_it_and_for_no_other(
    company: Company, alice: VpnUser, duo: DuoService
) -> None:
    ask(company, "duo")
    assert code(company, alice) == "allowed"
    duo.auth = lambda sent: said("deny", "deny")
    assert code(company, alice) == "allowed"  # the client offers it to the next host
    assert code(company, alice, wg_public_key="key-2") == "duo_rejected"
    assert code(company, company.hire("bob", email="bob@example.com")[0]) == "duo_rejected"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (said("deny", "deny"), "rejected"),
        (said("deny", "timeout"), "expired"),
        (said("deny", "fraud"), "fraud"),
        (said("deny", "locked_out"), "locked_out"),
        (said("deny", "allow"), "rejected"),  # the result decides alone
        (said("waiting", "pushed"), "malformed"),
        (said("allowed", "allow"), "malformed"),
        (ok(result=True, status="allow"), "malformed"),
        (ok(result="allow"), "malformed"),
        (ok(), "malformed"),
        (Said(200, b"<html>"), "malformed"),
        (Said(200, b"[]"), "malformed"),
        (Said(200, b'{"stat": "OK", "response": "allow"}'), "malformed"),
        (Said(302, b"", {"Location": "/elsewhere"}), "malformed"),
        (Said(201, ALLOW.body), "malformed"),
        (fail(200, 40301, "Access forbidden"), "refused"),
        (fail(400, 40002, "Invalid request parameters"), "refused"),
        (Said(401, b"no JSON"), "refused"),
        (Said(429), "unavailable"),
        (Said(503, b"busy"), "unavailable"),
        (Said(raw=b""), "unavailable"),
    ],
    ids=str,
)
def test_nothing_but_a_documented_yes_lets_in(
    company: Company, alice: VpnUser, duo: DuoService, kind: str, answer: Said, outcome: str
) -> None:
    ask(company, kind, if_unavailable="skip")
    duo.auth = lambda sent: answer
    if (kind, outcome) == ("duo_otp", "rejected"):
        outcome = "wrong"  # nobody said no on a phone
    expected = "allowed" if outcome == "unavailable" else f"{kind}_{outcome}"
    assert code(company, alice, "123456" if kind == "duo_otp" else "") == expected
    ServerFactor.objects.update(if_unavailable="refuse")
    assert code(company, alice, "123456" if kind == "duo_otp" else "", device_id="2") == f"{kind}_{outcome}"
    assert SENTENCES[outcome]


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (ok(result="allow", status_msg=""), "allowed"),
        (ok(result="deny", status_msg=""), "duo_denied_there"),
        (ok(result="enroll", enroll_portal_url="https://…"), "duo_not_enrolled_there"),
        (
            ok(result="auth", devices=[{"device": "D", "type": "token", "capabilities": ["mobile_otp"]}]),
            "duo_no_device",
        ),
        (ok(result="auth", devices=[]), "duo_no_device"),
        (ok(result="auth", devices="none"), "duo_malformed"),
        (ok(result="auth", devices=[{"capabilities": 5}]), "duo_malformed"),
        (ok(result="auth"), "duo_malformed"),
        (ok(result="Auth"), "duo_malformed"),
    ],
    ids=str,
)
def test_who_duo_does_not_ask_gets_no_request(
    company: Company, alice: VpnUser, duo: DuoService, answer: Said, outcome: str
) -> None:
    ask(company, "duo")
    duo.preauth = lambda sent: answer
    assert code(company, alice) == outcome
    assert [path for path, _ in duo.asked] == ["/auth/v2/preauth"]


def test_a_passcode_counts_once_there_and_for_its_attempt_again(
    company: Company, alice: VpnUser, duo: DuoService
) -> None:
    ask(company, "duo_otp")
    ask(company, "pin")
    enrol(alice, "w0mbat")
    used: set[str] = set()

    def once(sent: dict[str, str]) -> Said:
        fresh = sent["passcode"] not in used
        used.add(sent["passcode"])
        return ALLOW if fresh else said("deny", "deny")

    duo.auth = once
    assert profile_flags(alice, policy_of(company.server), NOW).password_mode == "duo_otp_pin"
    assert code(company, alice, "w0mbet123456") == "pin_wrong"
    assert used == set()  # a wrong PIN costs no passcode
    assert code(company, alice, "w0mbat123456") == "allowed"
    assert code(company, alice, "123456w0mbat") == "allowed"
    assert code(company, alice, "w0mbat123456", wg_public_key="key-2") == "duo_otp_wrong"


def test_a_user_without_the_name_that_duo_knows_is_refused(company: Company, alice: VpnUser, duo: DuoService) -> None:
    ask(company, "duo")
    VpnUser.objects.update(email="")
    assert code(company, alice) == "duo_no_name"
    assert duo.asked == []


def test_one_request_is_open_at_a_time(company: Company, alice: VpnUser, duo: DuoService) -> None:
    ask(company, "duo", if_unavailable="skip")
    with pushes.one_open(alice, "another attempt"):
        assert code(company, alice) == "duo_push_open"
        assert [path for path, _ in duo.asked] == ["/auth/v2/preauth"]
    assert code(company, alice) == "allowed"
    assert redis_client().exists(f"push:{alice.public_id}") == 0


def test_an_old_attempt_does_not_end_the_request_of_a_new_one(company: Company, alice: VpnUser) -> None:
    with pushes.one_open(alice, "old"):
        redis_client().set(f"push:{alice.public_id}", "new")
    assert redis_client().get(f"push:{alice.public_id}") == "new"


def test_the_number_of_requests_is_limited(company: Company, alice: VpnUser, settings: LazySettings) -> None:
    settings.ATTEMPTS_PER_USER = settings.ATTEMPTS_PER_ADDRESS = 1000
    ask(company, "duo")
    for number in range(pushes.PER_HOUR):
        assert code(company, alice, wg_public_key=f"key-{number}") == "allowed"
    assert code(company, alice, wg_public_key="one more") == "duo_too_many_pushes"


def test_wrong_keys_and_clocks_are_said_when_it_is_tried(service: Counterpart, duo: DuoService, db: None) -> None:
    factor = load("duo")
    right, wrong = a_provider("duo", service.url), a_provider("duo_otp", service.url, secret="another")
    duo.now = time.time()
    assert factor.try_out(config_of(right, DuoApplication)) == "Duo answers, and knows the keys."
    with pytest.raises(NotDone, match="keys of the provider"):
        factor.try_out(config_of(wrong, DuoApplication))
    duo.now += 1000
    with pytest.raises(NotDone, match="clock"):
        factor.try_out(config_of(right, DuoApplication))


@pytest.mark.parametrize("kind", KINDS)
def test_whoever_must_not_wait_is_sent_elsewhere_before_anything_is_counted(
    company: Company, alice: VpnUser, duo: DuoService, kind: str
) -> None:
    ask(company, kind)
    with pytest.raises(MustWait):
        authorize(alice, policy_of(company.server), an_attempt("123456"), NOW, may_wait=False)
    assert duo.asked == []
    assert redis_client().keys("attempts:*") == []
