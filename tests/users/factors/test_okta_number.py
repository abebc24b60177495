"""Okta's push with a number: the sign-in page shows what to choose on the phone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client

from core.redis_store import redis_client
from servers.policy import policy_of
from tests.conftest import Clock
from tests.counterpart import Said, serving
from tests.factories import Company
from tests.protocol_client import NOW
from users.factors import pushes
from users.factors.okta.number import OktaNumber
from users.factors.wanted import profile_flags
from users.models import SignIn
from wgpeers.models import Decision

from .okta_service import OktaService, error
from .on_phone import PhoneVisit
from .test_okta import CANCEL, VERIFY, a_provider

NUMBER = '<p class="code">72</p>'
LOOK = "GET /api/v1/users/00u1/factors/push1/transactions/v2mst"
WAITING, SUCCESS, REJECTED = ({"factorResult": result} for result in ("WAITING", "SUCCESS", "REJECTED"))


@pytest.fixture
def okta() -> OktaService:
    return OktaService(results=[])


@pytest.fixture
def visit(company: Company, host: object, okta: OktaService, settings: LazySettings) -> Iterator[PhoneVisit]:
    settings.SIGN_IN_HOLD = 0.0
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    company.server.factors.all().delete()
    company.server.factors.create(kind="okta_number")
    with serving(okta) as service:
        a_provider("okta_number", service.url)
        yield PhoneVisit(company.hire("alice", email="alice@example.com")[1])


def refusal(visit: PhoneVisit) -> str:
    assert visit.wait()["allow"] is False
    return Decision.objects.latest("pk").code


def test_the_number_is_shown_until_they_chose_it_on_the_phone(
    company: Company, visit: PhoneVisit, okta: OktaService
) -> None:
    visit.connect()
    assert profile_flags(SignIn.objects.get().user, policy_of(company.server), NOW).sso_auth
    assert visit.asked["sso_url"].rpartition("/")[0].endswith("/sso/phone")
    page = visit.look()
    assert "alice" in page
    assert "Send a request to my phone" in page
    assert okta.asked == []  # to open the page sends nothing
    okta.results = [WAITING, WAITING, SUCCESS]
    assert NUMBER in visit.press()
    assert okta.asked.count(VERIFY) == 1
    assert visit.wait() == 428
    shown = visit.look()
    assert '<meta http-equiv="refresh" content="3">' in shown
    assert "<script" not in shown
    assert "You are signed in" in visit.look()
    assert visit.wait()["allow"] is True
    assert not redis_client().exists(f"push:{SignIn.objects.get().user.public_id}")


def test_another_browser_sees_no_number_and_rings_no_phone(visit: PhoneVisit, okta: OktaService) -> None:
    visit.connect()
    visit.press()
    mine, visit.browser = visit.browser, Client(enforce_csrf_checks=True)
    assert NUMBER not in visit.look()
    assert NUMBER not in visit.press()
    assert visit.status == 429
    assert okta.asked.count(VERIFY) == 1
    visit.browser = mine
    assert NUMBER in visit.look()


def test_the_page_is_loaded_again_and_again_and_okta_is_asked_every_some_seconds(
    visit: PhoneVisit, okta: OktaService
) -> None:
    visit.connect()
    visit.press()
    before = okta.asked.count(LOOK)
    for _ in range(5):
        visit.browser.get(visit.page)
    assert okta.asked.count(LOOK) == before


@pytest.mark.parametrize(
    ("results", "outcome"),
    [([WAITING, REJECTED], "rejected"), ([{"factorResult": "TIMEOUT"}], "expired")],
)
def test_a_no_ends_the_attempt_and_the_phone_is_free_again(
    visit: PhoneVisit, okta: OktaService, results: list[Any], outcome: str
) -> None:
    okta.results = results
    visit.connect()
    visit.press()
    visit.look()
    assert "You cannot connect" in visit.look()
    assert refusal(visit) == f"okta_number_{outcome}"
    assert OktaNumber.sentences[outcome]
    assert not redis_client().exists(f"push:{SignIn.objects.get().user.public_id}")


@pytest.mark.parametrize("result", ["SUCCES", None, ["SUCCESS"], 5])
def test_what_is_no_yes_lets_nobody_in(visit: PhoneVisit, okta: OktaService, result: Any) -> None:
    okta.results = [{"factorResult": result}] * 5
    visit.connect()
    visit.press()
    assert NUMBER in visit.look()
    assert visit.wait() == 428


@pytest.mark.parametrize(
    ("user", "outcome"),
    [
        (error(404, "E0000007"), "okta_number_not_enrolled_there"),
        (error(500, "E0000009"), ""),
        (error(401, "E0000011"), ""),
        (Said(200, b"<html>"), ""),
    ],
    ids=str,
)
def test_who_cannot_be_asked_is_refused_and_while_nobody_can_they_wait(
    visit: PhoneVisit, okta: OktaService, user: Said, outcome: str
) -> None:
    okta.user = user
    visit.connect()
    visit.press()
    if outcome:
        assert refusal(visit) == outcome
    else:
        assert visit.status == 503
        assert visit.wait() == 428
        okta.user, okta.results = None, [SUCCESS]
        visit.press()
        visit.look()
        assert visit.wait()["allow"] is True


@pytest.mark.parametrize("number", [None, "", True, "<b>7", "1234567", 7.5])
def test_a_request_without_a_number_is_taken_back(visit: PhoneVisit, okta: OktaService, number: Any) -> None:
    okta.number = number
    visit.connect()
    visit.press()
    assert okta.asked[-1] == CANCEL
    assert refusal(visit) == "okta_number_no_number"


def test_requests_are_few_whichever_factor_sends_them(visit: PhoneVisit, okta: OktaService, fixed_clock: Clock) -> None:
    visit.connect()
    user = SignIn.objects.get().user
    pushes.begin(user, "another attempt")
    visit.press()
    assert visit.status == 429
    pushes.end(user, "another attempt")
    for number in range(pushes.PER_HOUR):
        try:
            with pushes.one_open(user, str(number)):
                pass
        except pushes.NotSent:
            break
    visit.press()
    assert visit.status == 429
    assert okta.asked == []


def test_it_is_for_the_attempt_that_it_was_asked_for(visit: PhoneVisit, okta: OktaService) -> None:
    okta.results = [SUCCESS]
    visit.connect()
    visit.press()
    visit.look()
    assert visit.wait()["allow"] is True
    again = PhoneVisit(visit.identity)
    assert "sso_url" in again.connect()
    assert again.asked["sso_url"] != visit.asked["sso_url"]
