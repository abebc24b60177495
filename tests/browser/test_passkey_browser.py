"""A user's passkey in a browser that has one: added and shown on their own page, and shown while a client waits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from tests.browser.virtual_authenticator import VirtualAuthenticator
from tests.conftest import Clock
from tests.factories import Company, HostStandIn, found
from tests.lab import HANGING
from tests.users.factors.oidc.attempts import Visit
from tests.users.factors.passkey.visits import ask
from users.models import UserPasskey
from wgpeers.models import Decision
from wgpeers.profiles import links

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
MILLISECONDS = HANGING * 1000
WIDTHS = (1440, 390)


@pytest.fixture
def site(live_server: Any, settings: Any, monkeypatch: pytest.MonkeyPatch, fixed_clock: Clock) -> str:
    """By its name: browsers make no passkey for an address."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    settings.LINK_VIEWS_PER_MINUTE, settings.SIGN_IN_HOLD = 1000, 0.0
    url = str(live_server.url).replace("127.0.0.1", "localhost")
    settings.API_URLS = [url]
    return url


@pytest.fixture
def company(site: str) -> Iterator[Company]:
    there = found()
    ask(there)
    with HostStandIn(there.host).running():
        yield there


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def context(site: str) -> Iterator[BrowserContext]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--headless=new"], timeout=MILLISECONDS
        )
        context = browser.new_context()
        context.set_default_timeout(MILLISECONDS)
        expect.set_options(timeout=MILLISECONDS)
        yield context
        browser.close()


@pytest.fixture
def page(context: BrowserContext, complaints: list[str]) -> Iterator[Page]:
    page = context.new_page()
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    assert complaints == []


def look(page: Page, name: str) -> None:
    """At each width; nothing is wider than the window."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        if where := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=str(Path(where) / f"{name}-{width}.png"), full_page=True)


def test_a_user_adds_a_passkey_and_connects_with_it(
    site: str, company: Company, context: BrowserContext, page: Page, fixed_clock: Clock
) -> None:
    virtual = VirtualAuthenticator(context, page)
    alice, identity = company.hire("alice")
    page.goto(f"{site}/k/{links.create(alice, fixed_clock.now).short_id.reveal()}")
    page.get_by_role("button", name="Open").click()
    look(page, "to-do")
    page.get_by_label("Name of the new passkey").fill("My laptop")
    page.get_by_role("button", name="Add a passkey").click()
    look(page, "add")
    page.get_by_role("button", name="Make the passkey").click()
    expect(page.get_by_role("status")).to_have_text("Added the passkey “My laptop”.")
    page.get_by_role("button", name="Show your passkey").click()
    look(page, "show")
    page.get_by_role("button", name="Show your passkey").click()
    expect(page.get_by_role("status")).to_contain_text("It counts as a proof for five minutes.")
    page.get_by_text("Add another one").click()
    look(page, "own")

    visit = Visit(identity)
    asked = visit.connect()
    page.goto(asked["sso_url"])
    look(page, "sign-in")
    page.get_by_role("button", name="Use your passkey").click()
    expect(page.get_by_role("heading", name="You are signed in")).to_be_visible()
    assert visit.wait()["allow"] is True
    assert UserPasskey.objects.get().counter == len(["made", "shown", "signed in"])

    again = Visit(identity)
    page.goto(again.connect()["sso_url"])
    virtual.verifies(False)
    page.get_by_role("button", name="Use your passkey").click()
    expect(page.get_by_role("alert")).to_have_text("Nothing was chosen, or the browser gave up. Try again.")
    look(page, "gave-up")
    virtual.verifies(True)
    virtual.set_back()
    page.get_by_role("button", name="Use your passkey").click()
    expect(page.get_by_role("heading", name="This passkey is not accepted")).to_be_visible()
    look(page, "refused")
    assert again.wait()["allow"] is False
    assert Decision.objects.latest("pk").code == "passkey_copied"
