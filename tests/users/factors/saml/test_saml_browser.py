"""A person signs in by SAML: a provider of others, and the pages of both in a browser."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.test import Client
from playwright.sync_api import Page, expect, sync_playwright

from core import clock
from servers.models import ServerFactor
from tests.admin_site import staff
from tests.factories import Company, HostStandIn
from tests.lab import HANGING
from users.models import Enrolment, Provider
from wgpeers.models import Decision

from .attempts import ACS, SamlVisit, a_provider, ask
from .liar import a_key, certificate_of, pem_of
from .real_provider import metadata_at, provider

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
MILLISECONDS = HANGING * 1000
SAID = {"address_attribute": "mail", "groups_attribute": "groups"}


@pytest.fixture
def visit(company: Company, host: HostStandIn, settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> SamlVisit:
    """Alice's, by the real time: the provider has no other."""
    monkeypatch.setattr(clock, "source", time.time)
    settings.SIGN_IN_HOLD = 0.0
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    return SamlVisit(company.hire("alice", email="alice@acme.example")[1])


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--headless=new"], timeout=MILLISECONDS
        )
        page = browser.new_page()
        page.set_default_timeout(MILLISECONDS)
        expect.set_options(timeout=MILLISECONDS)
        yield page
        browser.close()


def sign_in(page: Page, name: str, button: str = "Sign in") -> None:
    page.get_by_role("button", name="Sign in with Acme").click()
    page.fill("[name=login]", name)
    page.get_by_role("button", name=button, exact=True).click()


@pytest.mark.parametrize("signs", ["assertion", "response"])
def test_a_person_signs_in_and_is_connected(
    company: Company, visit: SamlVisit, page: Page, live_server: Any, signs: str
) -> None:
    with provider(live_server.url + ACS, signs=signs) as there:
        ask(company, a_provider(metadata_at(there), our_address=live_server.url, **SAID), groups="vpn")
        visit.connect()
        page.goto(visit.asked["sso_url"])
        assert visit.wait() == 428
        sign_in(page, "alice")
        expect(page.get_by_role("heading")).to_have_text("You are signed in")
        assert re.fullmatch(r".*/sso/\w{32}", page.url)
        answer = visit.wait()
    assert answer["allow"] is True, Decision.objects.latest("pk").code
    assert Enrolment.objects.get(kind="saml").secret


def test_a_provider_that_takes_signed_requests_only(
    company: Company, visit: SamlVisit, page: Page, live_server: Any
) -> None:
    ours = certificate_of(a_key("ours")).public_bytes(Encoding.PEM).decode()
    with provider(live_server.url + ACS, ours=ours) as there:
        said = {**SAID, "our_address": live_server.url}
        ask(company, a_provider(metadata_at(there), **said))
        visit.connect()
        page.goto(visit.asked["sso_url"])
        sign_in(page, "alice")
        expect(page.locator("body")).to_contain_text("MUST be signed")
        key = pem_of(a_key("ours"))
        ask(company, a_provider(metadata_at(there), "Acme signed", key, our_certificate=ours, **said))
        again = SamlVisit(visit.identity)
        again.connect()
        page.goto(again.asked["sso_url"])
        sign_in(page, "alice")
        expect(page.get_by_role("heading")).to_have_text("You are signed in")


@pytest.mark.parametrize(("name", "button", "code"), [("bob", "Sign in", "other_account"), ("", "Cancel", "declined")])
def test_a_person_who_is_not_let_in_is_told(
    company: Company, visit: SamlVisit, page: Page, live_server: Any, name: str, button: str, code: str
) -> None:
    with provider(live_server.url + ACS) as there:
        ask(company, a_provider(metadata_at(there), our_address=live_server.url, **SAID))
        visit.connect()
        page.goto(visit.asked["sso_url"])
        sign_in(page, name, button)
        expect(page.get_by_role("heading")).to_have_text("You cannot connect with this account")
    assert visit.wait()["allow"] is False
    assert Decision.objects.latest("pk").code == f"saml_{code}"


def test_metadata_is_given_as_a_file(
    company: Company, visit: SamlVisit, page: Page, live_server: Any, tmp_path: Path
) -> None:
    staff(client := Client(), superuser=True)
    page.context.add_cookies(
        [{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": live_server.url}]
    )
    with provider(live_server.url + ACS) as there:
        file = tmp_path / "metadata.xml"
        file.write_text(metadata_at(there))
        page.goto(f"{live_server.url}/admin/users/provider/add/?kind=saml")
        page.fill("[name=name]", "Acme")
        page.fill("[name=our_address]", live_server.url)
        page.fill("[name=address_attribute]", "mail")
        page.set_input_files("[name=metadata-file]", file)
        for width in (1440, 390):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), width
            if folder := os.environ.get("PICTURES"):
                page.screenshot(path=f"{folder}/saml-{width}.png", full_page=True)
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.locator("body")).to_contain_text("was added successfully")
        row = Provider.objects.get()
        assert row.settings["metadata"] == file.read_text()
        page.goto(f"{live_server.url}/admin/users/provider/{row.pk}/change/")
        page.get_by_role("button", name="Try it").click()
        expect(page.locator("body")).to_contain_text(f"/sso/saml/{row.public_id}")
        ask(company, row)
        visit.connect()
        page.goto(visit.asked["sso_url"])
        sign_in(page, "alice")
        expect(page.get_by_role("heading")).to_have_text("You are signed in")
    assert User.objects.count() == 1
    assert ServerFactor.objects.get().provider == row
