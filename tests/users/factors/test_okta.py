"""Okta: a request on the phone and codes, against a stand-in of the service that checks tokens and paths."""

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
from tests.users.factors.okta_service import FACTORS, TOKEN, OktaService, error, said
from users.authorize import authorize
from users.factors import pushes
from users.factors.okta.factor import SENTENCES, OktaPush
from users.factors.okta.form import OktaOrganization
from users.factors.panels import NotDone
from users.factors.providers import config_of
from users.factors.registry import load
from users.factors.wanted import profile_flags
from users.models import Provider, VpnUser

WAITING: dict[str, Any] = {"factorResult": "WAITING"}
SUCCESS = {"factorResult": "SUCCESS"}
VERIFY = "POST /api/v1/users/00u1/factors/push1/verify"
CANCEL = "DELETE /api/v1/users/00u1/factors/push1/transactions/v2mst"


@pytest.fixture
def okta(monkeypatch: pytest.MonkeyPatch) -> OktaService:
    monkeypatch.setattr(OktaPush, "pause", staticmethod(lambda seconds: None))
    return OktaService()


@pytest.fixture
def service(okta: OktaService) -> Iterator[Counterpart]:
    with serving(okta) as counterpart:
        yield counterpart


@pytest.fixture
def alice(company: Company, service: Counterpart) -> VpnUser:
    company.server.factors.all().delete()
    for kind in ("okta", "okta_otp"):
        a_provider(kind, service.url)
    return company.hire("alice", email="alice@example.com")[0]


def a_provider(kind: str, address: str, token: str = TOKEN) -> Provider:
    secrets = Secret.of(json.dumps({"token": token}))
    return Provider.objects.create(kind=kind, name=kind, settings={"address": address}, secrets=secrets)


def ask(company: Company, kind: str, **how: str) -> None:
    ServerFactor.objects.create(server=company.server, kind=kind, **how)


def code(company: Company, user: VpnUser, typed: str = "", **attempt: Any) -> str:
    fresh = VpnUser.objects.select_related("organization").get(pk=user.pk)
    return getattr(authorize(fresh, policy_of(company.server), an_attempt(typed, **attempt), NOW), "code", "allowed")


def test_a_yes_on_the_phone_lets_in_this_attempt_and_no_other(
    company: Company, alice: VpnUser, okta: OktaService
) -> None:
    ask(company, "okta")
    assert profile_flags(alice, policy_of(company.server), NOW).push_auth
    okta.results = [WAITING, WAITING, WAITING, SUCCESS]
    assert code(company, alice) == "allowed"
    assert okta.asked[0] == "GET /api/v1/users/alice%40example.com"
    assert okta.last.headers["x-forwarded-for"] == "198.51.100.7"
    assert okta.asked.count(VERIFY) == 1
    okta.results = [WAITING, {"factorResult": "REJECTED"}]
    assert code(company, alice) == "allowed"  # the client offers it to the next host
    assert code(company, alice, wg_public_key="key-2") == "okta_rejected"
    okta.results = [{"factorResult": "REJECTED"}]
    assert code(company, company.hire("bob", email="bob@example.com")[0]) == "okta_rejected"


@pytest.mark.parametrize(
    ("results", "outcome"),
    [
        ([WAITING, {"factorResult": "TIMEOUT"}], "expired"),
        ([WAITING, {"factorResult": "SUCCES"}], "malformed"),
        ([WAITING, {"factorResult": None}], "malformed"),
        ([WAITING, {"factorResult": ["SUCCESS"]}], "malformed"),
        ([{**WAITING, "_links": {}}, SUCCESS], "malformed"),
        ([{**WAITING, "_links": {"poll": {"href": 5}}}, SUCCESS], "malformed"),
        ([{**WAITING, "_embedded": {"challenge": {"correctAnswer": 72}}}], "number"),
    ],
    ids=str,
)
def test_nothing_but_a_yes_lets_in(
    company: Company, alice: VpnUser, okta: OktaService, results: list[dict[str, Any]], outcome: str
) -> None:
    ask(company, "okta", if_unavailable="skip")
    okta.results = results
    assert code(company, alice) == f"okta_{outcome}"
    assert SENTENCES[outcome]
    assert (CANCEL in okta.asked) == (outcome == "number")
    assert not redis_client().exists(f"push:{alice.public_id}")


def test_a_request_that_nobody_answers_is_taken_back(
    company: Company, alice: VpnUser, okta: OktaService, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(company, "okta")
    okta.results = []
    ticks = itertools.count(0, pushes.OPEN / 3)
    monkeypatch.setattr(OktaPush, "clock", staticmethod(lambda: next(ticks)))
    assert code(company, alice) == "okta_expired"
    assert okta.asked[-1] == CANCEL


@pytest.mark.parametrize("links_to", ["https://evil.example", "http://localhost:1", "tls"])
def test_the_token_goes_nowhere_else(company: Company, alice: VpnUser, okta: OktaService, links_to: str) -> None:
    ask(company, "okta", if_unavailable="skip")
    okta.results, okta.links_to = [WAITING, SUCCESS], links_to
    assert code(company, alice) == "okta_malformed"
    assert okta.asked[-1] == VERIFY


def found(**changes: Any) -> Said:
    return said({"id": "00u1", "status": "ACTIVE", "profile": {"login": "alice@example.com"}} | changes)


@pytest.mark.parametrize(
    ("user", "outcome"),
    [
        (error(404, "E0000007"), "not_enrolled_there"),
        (found(profile={"login": "alice@elsewhere.example"}), "not_enrolled_there"),
        (found(status="SUSPENDED"), "denied_there"),
        (found(status="LOCKED_OUT"), "denied_there"),
        (found(profile=None), "malformed"),
        (found(id=5), "malformed"),
        (said([]), "malformed"),
        (Said(200, b"<html>"), "malformed"),
        (Said(302, b"", {"Location": "/"}), "malformed"),
        (error(403, "E0000006"), "refused"),
        (error(401, "E0000011"), "refused"),
        (error(429, "E0000047"), "unavailable"),
        (error(500, "E0000009"), "unavailable"),
        (Said(raw=b""), "unavailable"),
    ],
    ids=str,
)
def test_who_is_not_an_active_user_there_gets_no_request(
    company: Company, alice: VpnUser, okta: OktaService, user: Said, outcome: str
) -> None:
    ask(company, "okta", if_unavailable="skip")
    okta.user = user
    assert code(company, alice) == ("allowed" if outcome == "unavailable" else f"okta_{outcome}")
    assert len(okta.asked) == 1
    assert SENTENCES[outcome]


@pytest.mark.parametrize(("factors", "outcome"), [(FACTORS[:2], "no_device"), ([], "no_device"), ({}, "malformed")])
def test_who_has_nothing_set_up_is_refused(
    company: Company, alice: VpnUser, okta: OktaService, factors: Any, outcome: str
) -> None:
    ask(company, "okta")
    okta.factors = factors
    assert code(company, alice) == f"okta_{outcome}"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (said({"factorResult": "SUCCESS"}), "allowed"),
        (error(403, "E0000068"), "okta_otp_wrong"),
        (said({"factorResult": "FAILED"}), "okta_otp_wrong"),
        (said({"factorResult": "TIME_WINDOW_EXCEEDED"}), "okta_otp_wrong"),
        (said({"factorResult": "PASSCODE_REPLAYED"}), "okta_otp_used"),
        (said({"factorResult": "WAITING"}), "okta_otp_malformed"),
        (said({}), "okta_otp_malformed"),
        (said({"factorResult": "SUCCESS"}, 201), "okta_otp_malformed"),
        (error(429, "E0000047"), "okta_otp_unavailable"),
    ],
    ids=str,
)
def test_a_code_passes_by_its_result_and_once(
    company: Company, alice: VpnUser, okta: OktaService, answer: Said, outcome: str
) -> None:
    ask(company, "okta_otp")
    ask(company, "pin")
    enrol(alice, "w0mbat")
    assert profile_flags(alice, policy_of(company.server), NOW).password_mode == "okta_otp_pin"
    okta.code = answer
    assert code(company, alice, "w0mbet123456") == "pin_wrong"
    assert okta.asked == []  # a wrong PIN costs no code
    assert code(company, alice, "w0mbat123456") == outcome


def test_it_can_be_tried(service: Counterpart, okta: OktaService, db: None) -> None:
    right, wrong = a_provider("okta", service.url), a_provider("okta_otp", service.url, "another")
    assert "takes the token" in load("okta").try_out(config_of(right, OktaOrganization))
    with pytest.raises(NotDone, match="does not take the API token"):
        load("okta").try_out(config_of(wrong, OktaOrganization))
