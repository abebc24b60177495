"""A person adds a user's YubiKey by touching it, which types it and Enter, and removes it."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from core import clock
from core.crypto import Secret
from tests.browser.test_admin_browser import complaints, page  # noqa: F401
from tests.factories import found
from tests.users.factors.yubiserver import Key, yubiserver
from users.models import Provider
from wgpeers.profiles import links

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize("width", [1440, 390])
def test_a_person_adds_a_yubikey_by_touching_it(page: Page, live_server: Any, width: int) -> None:  # noqa: F811
    key = Key("cccccccccccb")
    alice = found().hire("alice")[0]
    with yubiserver(key) as service:
        secrets = Secret.of(json.dumps({"secret_key": service.key}))
        says = {"servers": service.url, "client_id": service.client_id}
        Provider.objects.create(kind="yubikey", name="keys", settings=says, secrets=secrets)
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(f"{live_server.url}/admin/users/vpnuser/{alice.pk}/change/")
        page.get_by_label("Touch the YubiKey").fill(key.touch())
        page.get_by_label("Touch the YubiKey").press("Enter")
        expect(page.get_by_text("Added the YubiKey cccccccccccb to alice.")).to_be_visible()
    expect(page.get_by_text("cccccccccccb", exact=True)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.locator("code", has_text="cccccccccccb").locator("xpath=..").get_by_role("button", name="Remove").click()
    expect(page.get_by_text("Removed the YubiKey cccccccccccb of alice.")).to_be_visible()


@pytest.mark.parametrize("width", [1440, 390])
def test_a_user_adds_their_yubikeys_and_removes_one(page: Page, live_server: Any, width: int) -> None:  # noqa: F811
    first, second = Key("cccccccccccb"), Key("cccccccccccd")
    company = found()
    company.server.factors.all().delete()
    company.server.factors.create(kind="yubikey")
    with yubiserver(first, second) as service:
        secrets = Secret.of(json.dumps({"secret_key": service.key}))
        says = {"servers": service.url, "client_id": service.client_id}
        Provider.objects.create(kind="yubikey", name="keys", settings=says, secrets=secrets)
        page.set_viewport_size({"width": width, "height": 900})
        link = links.create(company.hire("alice")[0], clock.now())
        page.goto(f"{live_server.url}/k/{link.short_id.reveal()}")
        page.get_by_role("button", name="Open").click()
        page.get_by_label("Name of the new YubiKey").fill("Mine")
        page.get_by_label("Touch the new YubiKey here").fill(first.touch())
        page.get_by_label("Touch the new YubiKey here").press("Enter")
        expect(page.get_by_role("status")).to_have_text("Added the YubiKey “Mine”.")
        page.get_by_text("Add another one").click()
        page.get_by_label("Touch a YubiKey that you have").fill(first.touch())
        page.get_by_label("Name of the new YubiKey").fill("Spare")
        page.get_by_label("Touch the new YubiKey here").fill(second.touch())
        page.get_by_role("button", name="Add the YubiKey").click()
        expect(page.get_by_role("status")).to_have_text("Added the YubiKey “Spare”.")
        page.get_by_text("Remove one").click()
        if where := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=f"{where}/yubikeys-{width}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.get_by_label("Which one").select_option("Spare")
        page.locator("form", has_text="Which one").get_by_label("Touch a YubiKey").fill(first.touch())
        page.get_by_role("button", name="Remove it").click()
        expect(page.get_by_role("status")).to_have_text("Removed the YubiKey “Spare”.")
