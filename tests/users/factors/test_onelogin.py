"""OneLogin: a request on the phone and codes, against a stand-in of the service that checks credentials and paths."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from core.crypto import Secret
from core.redis_store import redis_client
from servers.models import ServerFactor
from servers.policy import policy_of
from tests.attempts import an_attempt, enrol
from tests.counterpart import Counterpart, Said, serving
from tests.factories import Company
from tests.protocol_client import NOW
from tests.users.factors.onelogin_service import (
    CLIENT,
    DEVICES,
    SECRET,
    SUCCESS,
    OneLoginService,
    a_user,
    error,
    said,
)
from users.authorize import authorize
from users.factors import pushes
from users.factors.onelogin import api
from users.factors.onelogin.factor import SENTENCES, OneLoginPush
from users.factors.onelogin.form import OneLoginAccount
from users.factors.panels import NotDone
from users.factors.providers import config_of
from users.factors.registry import load
from users.factors.wanted import profile_flags
from users.models import Provider, VpnUser

PENDING = {"status": "pending"}
ACCEPTED = {"status": "accepted"}
BEGIN = "POST /api/2/mfa/users/77/verifications"
LOOK = "GET /api/2/mfa/users/77/verifications/ver-1"
TOKEN = "POST /auth/oauth2/v2/token"


@pytest.fixture
def onelogin(monkeypatch: pytest.MonkeyPatch) -> OneLoginService:
    monkeypatch.setattr(OneLoginPush, "pause", staticmethod(lambda seconds: None))
    api.forget_tokens()
    return OneLoginService()


@pytest.fixture
def service(onelogin: OneLoginService) -> Iterator[Counterpart]:
    with serving(onelogin) as counterpart:
        yield counterpart


@pytest.fixture
def alice(company: Company, service: Counterpart) -> VpnUser:
    company.server.factors.all().delete()
    for kind in ("onelogin", "onelogin_otp"):
        a_provider(kind, service.url)
    return company.hire("alice", email="alice@example.com")[0]


def a_provider(kind: str, address: str, secret: str = SECRET, **settings: str) -> Provider:
    says = {"address": address, "client_id": CLIENT, **settings}
    secrets = Secret.of(json.dumps({"client_secret": secret}))
    return Provider.objects.create(kind=kind, name=f"{kind} {secret[:4]}", settings=says, secrets=secrets)


def ask(company: Company, kind: str, **how: str) -> None:
    ServerFactor.objects.create(server=company.server, kind=kind, **how)


def code(company: Company, user: VpnUser, typed: str = "", **attempt: Any) -> str:
    fresh = VpnUser.objects.select_related("organization").get(pk=user.pk)
    return getattr(authorize(fresh, policy_of(company.server), an_attempt(typed, **attempt), NOW), "code", "allowed")


def test_a_yes_on_the_phone_lets_in_this_attempt_and_no_other(
    company: Company, alice: VpnUser, onelogin: OneLoginService
) -> None:
    ask(company, "onelogin")
    assert profile_flags(alice, policy_of(company.server), NOW).push_auth
    onelogin.results = [PENDING, PENDING, [ACCEPTED]]  # alone in a list, as some of their pages show it
    assert code(company, alice) == "allowed"
    assert onelogin.asked[:3] == [
        TOKEN,
        "GET /api/2/users?email=alice%40example.com",
        "GET /api/2/mfa/users/77/devices",
    ]
    # The one that they have made their usual one, and for no longer than we wait.
    assert onelogin.sent[onelogin.asked.index(BEGIN)] == {"device_id": "3", "expires_in": pushes.OPEN}
    assert onelogin.asked.count(LOOK) == 3
    onelogin.results = [PENDING, {"status": "rejected"}]
    assert code(company, alice) == "allowed"  # the client offers it to the next host
    assert onelogin.asked.count(BEGIN) == 1
    assert code(company, alice, wg_public_key="key-2") == "onelogin_rejected"
    onelogin.results = [{"status": "rejected"}]
    assert code(company, company.hire("bob", email="bob@example.com")[0]) == "onelogin_rejected"
    assert onelogin.asked.count(TOKEN) == 1


@pytest.mark.parametrize(
    ("results", "outcome"),
    [
        ([PENDING, error(404, "NotFoundError")], "expired"),
        ([PENDING, {"status": "approved"}], "malformed"),
        ([PENDING, {"status": None}], "malformed"),
        ([PENDING, {"status": ["accepted"]}], "malformed"),
        ([PENDING, [ACCEPTED, ACCEPTED]], "malformed"),
        ([PENDING, []], "malformed"),
        ([PENDING, said(ACCEPTED, 201)], "malformed"),
        ([PENDING, Said(200, b"<html>")], "malformed"),
        ([PENDING, error(403, "ForbiddenError")], "refused"),
        ([PENDING, error(401, "UnauthorizedError"), error(401, "UnauthorizedError")], "refused"),
    ],
    ids=str,
)
def test_nothing_but_a_yes_lets_in(
    company: Company, alice: VpnUser, onelogin: OneLoginService, results: list[Any], outcome: str
) -> None:
    ask(company, "onelogin", if_unavailable="skip")
    onelogin.results = [*results, ACCEPTED]
    assert code(company, alice) == f"onelogin_{outcome}"
    assert SENTENCES[outcome]
    assert not redis_client().exists(f"push:{alice.public_id}")


def test_nobody_is_waited_for_longer_than_the_request_lasts(
    company: Company, alice: VpnUser, onelogin: OneLoginService, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(company, "onelogin")
    onelogin.results = []
    ticks = itertools.count(0, pushes.OPEN / 3)
    monkeypatch.setattr(OneLoginPush, "clock", staticmethod(lambda: next(ticks)))
    assert code(company, alice) == "onelogin_expired"
    assert onelogin.asked.count(LOOK) == 3


def found(*users: dict[str, Any]) -> Said:
    return said(list(users))


@pytest.mark.parametrize(
    ("users", "outcome"),
    [
        (found(), "not_enrolled_there"),
        (found(a_user("alice@elsewhere.example")), "not_enrolled_there"),
        (found(a_user("alice@example.com"), a_user("ALICE@example.com", id=78)), "not_enrolled_there"),
        (found(a_user("alice@example.com", email=None)), "not_enrolled_there"),
        *((found(a_user("alice@example.com", status=status)), "denied_there") for status in (0, 2, 3, 4, 5, True, "1")),
        (found(a_user("alice@example.com", status=None)), "denied_there"),
        (found(a_user("alice@example.com", id=None)), "malformed"),
        (found(a_user("alice@example.com", id=True)), "malformed"),
        (said([5]), "malformed"),
        (said({}), "malformed"),
        (Said(200, b"<html>"), "malformed"),
        (Said(302, b"", {"Location": "/"}), "malformed"),
        (error(422, "UnprocessableEntityError"), "malformed"),
        (error(403, "ForbiddenError"), "refused"),
        (error(401, "UnauthorizedError"), "refused"),
        (error(429, "TooManyRequestsError"), "unavailable"),
        (error(500, "InternalServerError"), "unavailable"),
        (Said(raw=b""), "unavailable"),
    ],
    ids=str,
)
def test_who_is_not_one_active_user_there_gets_no_request(
    company: Company, alice: VpnUser, onelogin: OneLoginService, users: Said, outcome: str
) -> None:
    ask(company, "onelogin", if_unavailable="skip")
    onelogin.users = users
    assert code(company, alice) == ("allowed" if outcome == "unavailable" else f"onelogin_{outcome}")
    assert BEGIN not in onelogin.asked
    assert SENTENCES[outcome]


def test_somebody_else_whom_their_search_finds_too_is_nobody(
    company: Company, alice: VpnUser, onelogin: OneLoginService
) -> None:
    ask(company, "onelogin")
    onelogin.users = found(a_user("alice@example.com.evil.example", id=13), a_user("Alice@example.com"))
    assert code(company, alice) == "allowed"


@pytest.mark.parametrize(
    ("token", "outcome"),
    [
        (said({"status": {"error": True, "code": 400, "type": "bad request", "message": "…"}}, 400), "refused"),
        (error(404, "NotFoundError"), "refused"),
        (error(500, "InternalServerError"), "unavailable"),
        (error(429, "TooManyRequestsError"), "unavailable"),
        (said({"access_token": "", "expires_in": 36000}), "malformed"),
        (said({"access_token": 5, "expires_in": 36000}), "malformed"),
        (said({"access_token": "n\u00e4h", "expires_in": 36000}), "malformed"),
        (said({}, 201), "malformed"),
        (Said(200, b""), "malformed"),
    ],
    ids=str,
)
def test_without_a_token_nobody_is_judged(
    company: Company, alice: VpnUser, onelogin: OneLoginService, token: Said, outcome: str
) -> None:
    ask(company, "onelogin")
    onelogin.token = token
    assert code(company, alice) == f"onelogin_{outcome}"
    assert onelogin.asked == [TOKEN]


def test_a_token_that_is_not_taken_any_more_is_replaced(
    company: Company, alice: VpnUser, onelogin: OneLoginService
) -> None:
    ask(company, "onelogin")
    assert code(company, alice) == "allowed"
    onelogin.good.clear()
    onelogin.results = [ACCEPTED]
    assert code(company, alice, wg_public_key="key-2") == "allowed"
    assert onelogin.asked.count(TOKEN) == 2


def test_another_secret_is_shown_before_anything_is_believed(
    company: Company, alice: VpnUser, onelogin: OneLoginService
) -> None:
    ask(company, "onelogin")
    assert code(company, alice) == "allowed"
    Provider.objects.filter(kind="onelogin").update(secrets=Secret.of('{"client_secret": "another"}'))
    assert code(company, alice, wg_public_key="key-2") == "onelogin_refused"


@pytest.mark.parametrize(
    ("devices", "outcome"),
    [
        (DEVICES[:1], "no_device"),
        ([], "no_device"),
        ({}, "malformed"),
        ([5], "malformed"),
        ([{"auth_factor_name": "OneLogin"}], "malformed"),
    ],
)
def test_who_has_nothing_set_up_is_refused(
    company: Company, alice: VpnUser, onelogin: OneLoginService, devices: Any, outcome: str
) -> None:
    ask(company, "onelogin")
    onelogin.devices = devices
    assert code(company, alice) == f"onelogin_{outcome}"


@pytest.mark.parametrize(
    ("begun", "outcome"),
    [
        (error(422, "UnprocessableEntityError"), "refused"),
        (error(403, "ForbiddenError"), "refused"),
        (error(503, "ServiceUnavailable"), "unavailable"),
        (said({}, 201), "malformed"),
        (said({"id": ""}, 201), "malformed"),
        (said({"id": "../../77/x"}, 201), "malformed"),
    ],
    ids=str,
)
def test_a_request_that_was_not_begun_lets_in_nobody(
    company: Company, alice: VpnUser, onelogin: OneLoginService, begun: Said, outcome: str
) -> None:
    ask(company, "onelogin")
    onelogin.begun = begun
    assert code(company, alice) == f"onelogin_{outcome}"
    assert not redis_client().exists(f"push:{alice.public_id}")


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (SUCCESS, "allowed"),
        (error(401, "InvalidCredentials"), "onelogin_otp_wrong"),
        (error(403, "ForbiddenAction"), "onelogin_otp_wrong"),
        (error(422, "UnprocessableEntityError"), "onelogin_otp_wrong"),
        (Said(400, b"<html>"), "onelogin_otp_wrong"),
        (said({"status": {"type": "success", "code": 200, "error": True}}), "onelogin_otp_malformed"),
        (said({"status": {"type": "failure", "code": 200, "error": False}}), "onelogin_otp_malformed"),
        (said({"status": "success"}), "onelogin_otp_malformed"),
        (said({}), "onelogin_otp_malformed"),
        (Said(200, b""), "onelogin_otp_malformed"),
        (Said(201, SUCCESS.body), "onelogin_otp_malformed"),
        (error(429, "TooManyRequestsError"), "onelogin_otp_unavailable"),
        (error(500, "InternalServerError"), "onelogin_otp_unavailable"),
    ],
    ids=str,
)
def test_a_code_passes_by_its_result_and_once(
    company: Company, alice: VpnUser, onelogin: OneLoginService, answer: Said, outcome: str
) -> None:
    ask(company, "onelogin_otp")
    ask(company, "pin")
    enrol(alice, "w0mbat")
    assert profile_flags(alice, policy_of(company.server), NOW).password_mode == "onelogin_otp_pin"
    onelogin.code = answer
    assert code(company, alice, "w0mbet123456") == "pin_wrong"
    assert onelogin.asked == []  # a wrong PIN costs no code
    assert code(company, alice, "w0mbat123456") == outcome
    # Shown to them once, whatever they said of it, and to the app's device alone.
    assert onelogin.sent.count({"otp": "123456", "device_id": 4}) == 1
    assert onelogin.sent.count({"device_id": 4}) == 1


def test_users_may_be_known_there_by_their_name(
    company: Company, alice: VpnUser, service: Counterpart, onelogin: OneLoginService
) -> None:
    Provider.objects.all().delete()
    a_provider("onelogin", service.url, username="name")
    ask(company, "onelogin")
    assert code(company, alice) == "allowed"
    assert "GET /api/2/users?username=alice" in onelogin.asked


def test_it_can_be_tried(service: Counterpart, onelogin: OneLoginService, db: None) -> None:
    right, wrong = a_provider("onelogin", service.url), a_provider("onelogin_otp", service.url, "another")
    assert "takes the credential" in load("onelogin").try_out(config_of(right, OneLoginAccount))
    with pytest.raises(NotDone, match=r"does not take the API credential.*OneLogin's code: 401"):
        load("onelogin").try_out(config_of(wrong, OneLoginAccount))
