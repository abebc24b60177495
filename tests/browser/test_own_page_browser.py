"""A user at their own page, in a browser without JavaScript: PIN, authenticator, recovery codes, devices; as wide
as a desk and as a phone."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyotp
import pytest
from playwright.sync_api import Browser, Page, expect

from core.clock import moment
from tests.attempts import ask
from tests.browser.conftest import MILLISECONDS
from tests.connection_rows import live
from tests.factories import Company, found
from users.models import Device, VpnUser
from wgpeers.models import Decision
from wgpeers.profiles import links

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
WIDTHS = (1440, 390)


@pytest.fixture
def company() -> Company:
    return found()


@pytest.fixture
def alice(company: Company) -> VpnUser:
    ask(company.server, pin="required", totp=True)
    return company.hire("alice")[0]


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def page(settings: Any, chromium: Browser, complaints: list[str]) -> Iterator[Page]:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    settings.LINK_VIEWS_PER_MINUTE = 1000
    with chromium.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.set_default_timeout(MILLISECONDS)
        page.on("console", lambda said: complaints.append(said.text) if "Policy" in said.text else None)
        yield page
    assert complaints == []


def look(page: Page, name: str) -> None:
    """At each width; nothing may be wider than the window."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        wide = page.locator("main").bounding_box()
        assert wide is not None
        assert wide["x"] >= 0
        assert wide["x"] + wide["width"] <= width
        for each in page.locator("main input:visible, main button:visible, main code, main p").all():
            box = each.bounding_box()
            assert box is None or box["x"] + box["width"] <= width, each.inner_text()
        if where := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=str(Path(where) / f"{name}-{width}.png"), full_page=True)


def test_a_user_sets_up_all_they_need_without_a_script(
    live_server: Any, company: Company, alice: VpnUser, page: Page
) -> None:
    now = time.time()
    Device.objects.create(
        user=alice, device_id="d1", name="laptop", platform="linux", first_seen=moment(now), last_seen=moment(now)
    )
    live(company, alice, now, device_id="d1", device_name="laptop")
    Decision.objects.create(
        time=moment(now), user=alice, user_name="alice", server_name="Office", layer="pin", code="pin_wrong"
    )
    link = links.create(alice, now)
    page.goto(f"{live_server.url}/k/{link.short_id.reveal()}")
    look(page, "unopened")
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_text("Before you can connect")).to_be_visible()
    look(page, "opened")

    page.fill("[name=pin]", "123456")
    page.fill("[name=again]", "123456")
    page.get_by_role("button", name="Set PIN").click()
    expect(page.get_by_role("alert")).to_contain_text("too easy to guess")
    page.fill("[name=pin]", "qu0kka77")
    page.fill("[name=again]", "qu0kka77")
    page.get_by_role("button", name="Set PIN").click()
    expect(page.get_by_role("status")).to_have_text("Your PIN is set.")

    page.locator("form", has_text="Set up").locator("[name=proof_pin]").fill("qu0kka77")
    page.get_by_role("button", name="Set up", exact=True).click()
    look(page, "first-code")
    secret = page.locator("#totp-secret").inner_text()
    page.fill("[name=code]", pyotp.TOTP(secret).now())
    page.get_by_role("button", name="Confirm").click()
    expect(page.locator("#recovery-codes li")).to_have_count(10)
    look(page, "recovery-codes")
    code = page.locator("#recovery-codes code").first.inner_text()
    assert re.fullmatch(r"[a-z2-9]{5}-[a-z2-9]{5}", code)
    page.get_by_role("link", name="Back to your page").click()
    expect(page.get_by_text("10 recovery codes left")).to_be_visible()

    page.get_by_text("Set up anew, with another phone").click()
    again = page.locator("form", has=page.get_by_role("button", name="Set up anew"))
    again.locator("[name=proof_pin]").fill("qu0kka77")
    again.locator("[name=proof_totp]").fill(code)
    look(page, "set-up-anew")
    again.get_by_role("button").click()
    expect(page.locator("#totp-secret")).to_be_visible()
    page.get_by_role("link", name="Back to your page").click()

    page.get_by_text("Rename or revoke").click()
    page.fill("[name=name]", "Work laptop")
    page.get_by_role("button", name="Rename").click()
    expect(page.get_by_role("heading", name="Work laptop")).to_be_visible()
    page.get_by_text("Rename or revoke").click()
    page.get_by_role("button", name="Revoke this device").click()
    expect(page.get_by_text("revoked", exact=True)).to_be_visible()
    expect(page.get_by_text("Connected now")).to_have_count(0)
    look(page, "all-done")
    page.get_by_role("button", name="End this link now").click()
    expect(page.get_by_text("This link is ended")).to_be_visible()
