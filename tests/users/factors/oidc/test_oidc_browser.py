"""A person signs in: a certified provider, and the pages of both in a browser."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import LazySettings
from playwright.sync_api import Page, expect, sync_playwright

from core import clock
from core.crypto import Secret
from servers.models import ServerFactor
from tests.factories import Company, HostStandIn
from tests.lab import HANGING
from users.factors.oidc import discovery
from users.models import Enrolment, Provider, SignIn
from users.signin import sign_ins
from users.signin.models import SignInGrant
from wgpeers.lifecycle import signed_in
from wgpeers.models import Connection, Decision, State

from .attempts import Visit, ask
from .certified import CLIENT, SECRET, Certified, certified

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
MILLISECONDS = HANGING * 1000
WIDTHS = (1440, 390)


@pytest.fixture
def provider(live_server: Any) -> Iterator[Certified]:
    with certified(f"{live_server.url}/sso/back") as running:
        yield running


@pytest.fixture
def visit(
    company: Company,
    host: HostStandIn,
    provider: Certified,
    live_server: Any,
    settings: LazySettings,
    monkeypatch: pytest.MonkeyPatch,
) -> Visit:
    """Alice's, by the real time: the provider has no other."""
    monkeypatch.setattr(clock, "source", time.time)
    settings.SIGN_IN_HOLD = 0.0
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    discovery.forget()
    said = {"issuer": provider.url, "client_id": CLIENT, "our_address": live_server.url, "ask_again": 5}
    secrets = Secret.of(json.dumps({"client_secret": SECRET}))
    ask(company, Provider.objects.create(kind="oidc", name="Acme sign-in", settings=said, secrets=secrets))
    return Visit(company.hire("alice", email="alice@acme.example")[1])


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """Without JavaScript."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--headless=new"], timeout=MILLISECONDS
        )
        page = browser.new_page(java_script_enabled=False)
        page.set_default_timeout(MILLISECONDS)
        expect.set_options(timeout=MILLISECONDS)
        yield page
        browser.close()


def sign_in(page: Page, name: str) -> None:
    page.get_by_role("button", name="Sign in with Acme sign-in").click()
    page.fill("[name=login]", name)
    page.fill("[name=password]", "anything")
    page.get_by_role("button", name="Sign-in").click()
    page.get_by_role("button", name="Continue").click()


def look(page: Page, name: str) -> None:
    """At each width; nothing may be wider than the window."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        wide = page.locator("main").bounding_box()
        assert wide
        assert wide["x"] >= 0
        assert wide["x"] + wide["width"] <= width
        if folder := os.environ.get("PICTURES"):
            page.screenshot(path=f"{folder}/{name}-{width}.png")


def test_a_person_signs_in_and_is_connected(visit: Visit, page: Page) -> None:
    ServerFactor.objects.update(settings={"groups": "vpn"})
    visit.connect(device_name="a device with quite a long name of the kind that people give theirs")
    page.goto(visit.asked["sso_url"])
    expect(page.locator(".code")).to_have_text(sign_ins.code_of(SignIn.objects.get()))
    look(page, "ask")
    assert visit.wait() == 428
    sign_in(page, "alice")
    expect(page.get_by_role("heading")).to_have_text("You are signed in")
    look(page, "done")
    assert re.fullmatch(r".*/sso/\w{32}", page.url)
    assert visit.wait()["allow"] is True
    assert Enrolment.objects.get(kind="oidc").secret


def test_a_person_with_another_account_is_refused(visit: Visit, page: Page) -> None:
    visit.connect()
    page.goto(visit.asked["sso_url"])
    sign_in(page, "bob")
    expect(page.get_by_role("heading")).to_have_text("You cannot connect with this account")
    look(page, "refused")
    assert visit.wait()["allow"] is False
    assert Decision.objects.latest("pk").code == "oidc_other_account"


def test_a_person_who_gives_up_there_is_told(visit: Visit, page: Page) -> None:
    visit.connect()
    page.goto(visit.asked["sso_url"])
    page.get_by_role("button", name="Sign in with Acme sign-in").click()
    page.get_by_role("link", name="Cancel").click()
    expect(page.get_by_role("heading")).to_have_text("You cannot connect with this account")
    assert visit.wait()["allow"] is False
    assert Decision.objects.latest("pk").code == "oidc_declined"


def test_a_provider_that_starts_again_with_new_keys_is_believed(
    visit: Visit, page: Page, provider: Certified, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit.connect()
    page.goto(visit.asked["sso_url"])
    sign_in(page, "alice")
    expect(page.get_by_role("heading")).to_have_text("You are signed in")
    provider.end()
    provider.start()
    later = clock.steady() + discovery.PAUSE + 1
    monkeypatch.setattr(clock, "steady_source", lambda: later)
    again = Visit(visit.identity)
    again.connect()
    page.goto(again.asked["sso_url"])
    sign_in(page, "alice")
    expect(page.get_by_role("heading")).to_have_text("You are signed in")
    assert again.wait()["allow"] is True


def asked_again() -> bool:
    """Whether who is connected still is, after the provider was asked about them once more."""
    before = SignInGrant.objects.get()
    SignInGrant.objects.update(due=clock.moment(clock.now()))
    signed_in.step(clock.now())
    after = SignInGrant.objects.first()
    # It gives a new token each time, and ends all of them where an old one is shown.
    assert after is None or after.refresh_token.reveal() != before.refresh_token.reveal()
    return Connection.objects.filter(state=State.OPEN).exists()


@pytest.mark.parametrize("what", ["disable", "groups"])
def test_a_person_is_disconnected_when_the_provider_says_so(
    visit: Visit, page: Page, provider: Certified, what: str
) -> None:
    ServerFactor.objects.update(settings={"groups": "vpn"})
    visit.connect()
    page.goto(visit.asked["sso_url"])
    sign_in(page, "alice")
    expect(page.get_by_role("heading")).to_have_text("You are signed in")
    assert visit.wait()["allow"] is True
    assert [asked_again() for _ in range(3)] == [True] * 3
    provider.tell(what, "alice")
    assert not asked_again()
    said = {"disable": "no longer stands by the sign-in", "groups": "in none of the groups"}[what]
    assert said in Decision.objects.latest("pk").detail
