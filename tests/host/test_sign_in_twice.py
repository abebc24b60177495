"""Two factors that ask in a browser, at one connect: single sign-on first, then a passkey; each with an address of its
own that ``wgpeer up`` shows, in a real browser."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from core.crypto import Secret
from tests.browser.virtual_authenticator import VirtualAuthenticator
from tests.host.conftest import use_redis
from tests.lab import HANGING, Echo, Lab, RedisServer, until
from tests.processes import environment
from tests.stack import BACKEND, Stack
from tests.users.factors.oidc.certified import CLIENT, SECRET, command
from users.models import Provider, UserPasskey, VpnUser
from wgpeers.models import Decision
from wgpeers.profiles import links

from .test_end_to_end import World, build, world
from .test_sign_in import end

__all__ = ["world"]
pytestmark = [pytest.mark.host, pytest.mark.browser, pytest.mark.long, pytest.mark.django_db(transaction=True)]
PORT = 3999
NAME = "https://localhost"  # browsers make no passkey for an address


@pytest.fixture(scope="module")
def running(rows_that_stay: None) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch, Lab() as lab, RedisServer() as server:
        use_redis(patch, server.url)
        stack = Stack(lab.add_host(), server, environment())
        stack.environment["API_URLS"] = f"{NAME},https://{stack.name}"
        with stack:
            yield build(lab, stack)
            if stack.worker is not None:
                stack.worker.kill()


@pytest.fixture
def context(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BrowserContext]:
    """On the host's own machine, where the provider is too."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    program = tmp_path / "chromium"
    inside = " ".join(world.stack.machine.command("/usr/bin/chromium", cwd=Path("/")))
    program.write_text(f'#!/bin/sh\nexec {inside} "$@"\n')
    program.chmod(0o755)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(program), args=["--no-sandbox", "--headless=new"], timeout=HANGING * 1000
        )
        context = browser.new_context(ignore_https_errors=True)
        context.set_default_timeout(HANGING * 1000)
        expect.set_options(timeout=HANGING * 1000)
        yield context
        browser.close()


def add_a_passkey(page: Page, user: VpnUser) -> None:
    page.goto(f"{NAME}/k/{links.create(user, time.time()).short_id.reveal()}")
    page.get_by_role("button", name="Open").click()
    page.get_by_label("Name of the new passkey").fill("My laptop")
    page.get_by_role("button", name="Add a passkey").click()
    page.get_by_role("button", name="Make the passkey").click()
    expect(page.get_by_role("status")).to_have_text("Added the passkey “My laptop”.")


def sign_in(page: Page) -> None:
    page.get_by_role("button", name="Sign in with Acme").click()
    page.fill("[name=login]", "alice")
    page.fill("[name=password]", "anything")
    page.get_by_role("button", name="Sign-in").click()
    page.get_by_role("button", name="Continue").click()


def test_single_sign_on_and_a_passkey_at_one_connect(world: World, context: BrowserContext, tmp_path: Path) -> None:
    page = context.new_page()
    VirtualAuthenticator(context, page)
    user, peer = world.hire("alice")
    VpnUser.objects.filter(pk=user.pk).update(email="alice@acme.example")
    world.stack.machine.start(*command(f"{NAME}/sso/back", PORT), log=tmp_path / "provider.log")
    world.wait(lambda: world.stack.machine.ask_tcp("127.0.0.1", PORT, b"GET / HTTP/1.0\r\n\r\n"))
    said = {"issuer": f"http://localhost:{PORT}", "client_id": CLIENT, "our_address": NAME}
    Provider.objects.create(
        kind="oidc", name="Acme", settings=said, secrets=Secret.of(json.dumps({"client_secret": SECRET}))
    )
    world.server.factors.all().delete()
    for kind in ("passkey", "oidc"):
        world.server.factors.create(kind=kind, mode="required", settings={})
    add_a_passkey(page, user)
    shown = tmp_path / "shown"
    up = peer.machine.start(*peer.command("up", "--wait", str(HANGING), "--backend", BACKEND), log=shown)
    try:
        first = until(lambda: addresses(shown)[:1])
        assert first
        page.goto(first[0][0])
        expect(page.locator(".code")).to_have_text(first[0][1])
        sign_in(page)
        second = until(lambda: addresses(shown)[1:2])
        assert second
        assert second[0] != first[0]
        page.goto(second[0][0])
        expect(page.locator(".code")).to_have_text(second[0][1])
        page.get_by_role("button", name="Use your passkey").click()
        expect(page.get_by_role("heading")).to_have_text("You are signed in")
        assert up.wait(HANGING) == 0, shown.read_text()
        assert len(addresses(shown)) == 2
        assert world.live(user)
        assert UserPasskey.objects.get().counter
        assert Decision.objects.filter(code="allowed").exists()
        with Echo(world.lan, world.lan.address, 7000):
            world.reaches_lan(peer)
    finally:
        end(up)
        print(shown.read_text(), world.stack.log()[-3000:])
        peer.machine.run(*peer.command("down"), check=False)


def addresses(shown: Path) -> list[tuple[str, str]]:
    """Each address with its code, in the order in which they were shown."""
    return re.findall(r"sign in here: (\S+).*?must show the code (\S{7})", shown.read_text(), re.DOTALL)
