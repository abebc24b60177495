"""An administrator's first sign-in, their second factors and sessions, in a browser that has a passkey of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Browser, BrowserContext, Page, expect

from core import clock
from core.models import AdminAuthenticator, Passkey
from tests.admin_site import PASSWORD
from tests.attempts import code_at
from tests.browser.conftest import MILLISECONDS
from tests.browser.virtual_authenticator import VirtualAuthenticator
from tests.conftest import Clock
from users.services import known_to_others

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
NEW_PASSWORD = "one that nobody else has seen"
# Where pictures of the pages are put, for people to look at.
PICTURES = os.environ.get("PICTURES", "")


@pytest.fixture
def complaints() -> list[str]:
    """What the browser's console calls an error."""
    return []


@pytest.fixture
def site(live_server: Any, settings: Any, fixed_clock: Clock) -> str:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    settings.API_URLS = []
    settings.ADMIN_SECOND_FACTOR = "required"
    known_to_others(User.objects.create_superuser("admin", password=PASSWORD))
    return str(live_server.url)


@pytest.fixture
def context(site: str, chromium: Browser, complaints: list[str]) -> Iterator[BrowserContext]:
    with chromium.new_context(viewport={"width": 1440, "height": 900}) as context:
        context.set_default_timeout(MILLISECONDS)
        yield context
    assert complaints == []


@pytest.fixture
def page(context: BrowserContext, complaints: list[str]) -> Page:
    page = context.new_page()
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: dialog.accept())
    return page


def picture(page: Page, name: str) -> None:
    """At the width of a desk and of a phone, light and dark; nothing is wider than the window."""
    for width, height in ((1440, 900), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        for theme in ("light", "dark"):
            page.evaluate("theme => document.documentElement.classList.toggle('dark', theme === 'dark')", theme)
            if PICTURES:
                page.screenshot(path=str(Path(PICTURES) / f"{name}-{width}-{theme}.png"), full_page=True)
        page.evaluate("document.documentElement.classList.remove('dark')")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (name, width)
    page.set_viewport_size({"width": 1440, "height": 900})


def sign_in(page: Page, site: str, password: str) -> None:
    page.goto(f"{site}/admin/")
    page.fill("[name=username]", "admin")
    page.fill("[name=password]", password)
    page.get_by_role("button", name="Log in").click()


def sign_out(page: Page, site: str) -> None:
    page.context.clear_cookies()
    page.goto(f"{site}/admin/")


def own_password(page: Page) -> None:
    page.fill("[name=old_password]", PASSWORD)
    page.fill("[name=new_password1]", NEW_PASSWORD)
    page.fill("[name=new_password2]", NEW_PASSWORD)
    page.get_by_role("button", name="Change password").click()


def test_the_first_sign_in_leads_to_a_password_and_an_app(page: Page, site: str, fixed_clock: Clock) -> None:
    sign_in(page, site, PASSWORD)
    own_password(page)
    expect(page.get_by_role("button", name="Set up an authenticator app")).to_be_visible()
    picture(page, "enrol")
    page.get_by_role("button", name="Set up an authenticator app").click()
    secret = page.locator("#totp-secret").inner_text()
    picture(page, "set-up")
    page.fill("[name=code]", "000000")
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_text("not the app's present code")).to_be_visible()
    picture(page, "set-up-wrong")
    page.fill("[name=code]", code_at(clock.now(), secret))
    page.get_by_role("button", name="Go on").click()
    expect(page.locator("#recovery-codes li")).to_have_count(10)
    picture(page, "recovery-codes")
    code = page.locator("#recovery-codes li").first.inner_text()
    page.get_by_role("link", name="go on").click()
    expect(page).to_have_url(f"{site}/admin/")
    sign_out(page, site)
    sign_in(page, site, NEW_PASSWORD)
    picture(page, "ask")
    page.fill("[name=code]", "000000")
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_text("That code is wrong")).to_be_visible()
    picture(page, "ask-wrong")
    page.fill("[name=code]", code)
    page.get_by_role("button", name="Go on").click()
    expect(page).to_have_url(f"{site}/admin/")
    page.goto(f"{site}/admin/second-factor/")
    expect(page.get_by_text("9 of 10 are left")).to_be_visible()
    expect(page.locator("[data-session]")).to_have_count(2)
    picture(page, "account")
    page.get_by_role("button", name="End all others").click()
    expect(page.locator("[data-session]")).to_have_count(1)
    fixed_clock.advance(15 * 60)
    page.goto(f"{site}/admin/auth/user/add/")
    expect(page.get_by_text("Is it still you?")).to_be_visible()
    picture(page, "confirm")
    page.fill("[name=code]", code_at(clock.now(), secret))
    page.get_by_role("button", name="Go on").click()
    expect(page).to_have_url(f"{site}/admin/auth/user/add/")
    page.goto(f"{site}/admin/auth/user/{User.objects.get().pk}/change/")
    expect(page.get_by_text("Your own second factor and sessions")).to_be_visible()
    picture(page, "administrator")


def test_a_passkey_is_added_at_the_first_sign_in_and_signs_in(
    context: BrowserContext, page: Page, site: str, fixed_clock: Clock
) -> None:
    virtual = VirtualAuthenticator(context, page)
    sign_in(page, site, PASSWORD)
    own_password(page)
    page.fill("[name=name]", "My laptop")
    page.get_by_role("button", name="Add a passkey").click()
    expect(page.locator("#recovery-codes li")).to_have_count(10)
    passkey = Passkey.objects.get()
    assert (passkey.name, passkey.rp_id) == ("My laptop", "localhost")
    assert not AdminAuthenticator.objects.exists()
    sign_out(page, site)
    sign_in(page, site, NEW_PASSWORD)
    picture(page, "ask-passkey")
    page.get_by_role("button", name="Use a passkey").click()
    expect(page).to_have_url(f"{site}/admin/")
    counter = Passkey.objects.get().counter
    assert counter > passkey.counter
    page.goto(f"{site}/admin/second-factor/")
    expect(page.get_by_text("for localhost")).to_be_visible()
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(page.get_by_text("your only second factor")).to_be_visible()
    picture(page, "account-passkey")
    sign_out(page, site)
    sign_in(page, site, NEW_PASSWORD)
    virtual.verifies(False)
    page.get_by_role("button", name="Use a passkey").click()
    expect(page.locator("[data-said]")).to_have_text(re.compile("Nothing was chosen"))
    virtual.verifies(True)
    virtual.set_back()
    page.get_by_role("button", name="Use a passkey").click()
    expect(page.get_by_text("somebody may have a copy")).to_be_visible()
    picture(page, "ask-copy")
    assert Passkey.objects.get().counter == counter
    page.goto(f"{site}/admin/users/vpnuser/")
    expect(page).to_have_url(re.compile("/admin/second-factor/verify/"))
