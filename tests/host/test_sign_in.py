"""The whole way of a sign-in: ``wgpeer up`` prints the address and the code, its user signs in at a provider of
others in a browser, and traffic goes through the tunnel."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from core.crypto import Secret
from tests.lab import HANGING, Echo, until
from tests.stack import BACKEND
from tests.users.factors.oidc.certified import CLIENT, SECRET, command
from tests.users.factors.saml.liar import a_key, certificate_of, metadata_of
from tests.users.factors.saml.real_provider import command as saml_command
from users.models import Provider, VpnUser

from .test_end_to_end import World, running, world

__all__ = ["running", "world"]
pytestmark = [pytest.mark.host, pytest.mark.browser, pytest.mark.django_db(transaction=True)]
PORT, SAML_PORT = 3999, 3998


@pytest.fixture
def page(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """In a browser on the host's own machine, where the provider is too: without TLS it is asked on no other."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    program = tmp_path / "chromium"
    inside = " ".join(world.stack.machine.command("/usr/bin/chromium", cwd=Path("/")))
    program.write_text(f'#!/bin/sh\nexec {inside} "$@"\n')
    program.chmod(0o755)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(program), args=["--no-sandbox", "--headless=new"], timeout=HANGING * 1000
        )
        page = browser.new_page(ignore_https_errors=True, java_script_enabled=False)
        page.set_default_timeout(HANGING * 1000)
        expect.set_options(timeout=HANGING * 1000)
        yield page
        browser.close()


def test_up_shows_where_to_sign_in_and_connects_whoever_has(world: World, page: Page, tmp_path: Path) -> None:
    ours = f"https://{world.stack.name}"
    begin(world, command(f"{ours}/sso/back", PORT), PORT, tmp_path)
    said = {"issuer": f"http://localhost:{PORT}", "client_id": CLIENT, "our_address": ours}
    ask(world, "oidc", said, {"client_secret": SECRET})

    def there() -> None:
        page.fill("[name=login]", "alice")
        page.fill("[name=password]", "anything")
        page.get_by_role("button", name="Sign-in").click()
        page.get_by_role("button", name="Continue").click()

    connects(world, page, tmp_path, "alice", there)


def test_by_saml(world: World, page: Page, tmp_path: Path) -> None:
    ours = f"https://{world.stack.name}"
    begin(world, saml_command(f"{ours}/sso/saml/acs", port=SAML_PORT), SAML_PORT, tmp_path)
    metadata = metadata_of(certificate_of(a_key()), issuer="urn:acme:id", sign_in=f"http://127.0.0.1:{SAML_PORT}/sso")
    ask(world, "saml", {"metadata": metadata, "our_address": ours, "address_attribute": "mail"}, {"our_key": ""})

    def there() -> None:
        page.fill("[name=login]", "bob")
        page.get_by_role("button", name="Sign in", exact=True).click()
        page.get_by_role("button", name="Submit").click()  # what a script does where there are any

    connects(world, page, tmp_path, "bob", there)


def begin(world: World, program: list[str], port: int, tmp_path: Path) -> None:
    world.stack.machine.start(*program, log=tmp_path / "provider.log")
    world.wait(lambda: world.stack.machine.ask_tcp("127.0.0.1", port, b"GET / HTTP/1.0\r\n\r\n"))


def ask(world: World, kind: str, said: dict[str, str], secrets: dict[str, str]) -> None:
    Provider.objects.create(kind=kind, name=f"Acme {kind}", settings=said, secrets=Secret.of(json.dumps(secrets)))
    world.server.factors.all().delete()
    world.server.factors.create(kind=kind, mode="required", settings={})


def connects(world: World, page: Page, tmp_path: Path, name: str, there: Callable[[], None]) -> None:
    """``there``: what the user does at the provider."""
    user, peer = world.hire(name)
    VpnUser.objects.filter(pk=user.pk).update(email=f"{name}@acme.example")
    shown = tmp_path / "shown"
    up = peer.machine.start(*peer.command("up", "--wait", str(HANGING), "--backend", BACKEND), log=shown)
    try:
        found = until(lambda: asked(shown.read_text()))
        assert found
        url, code = found
        page.goto(url)
        expect(page.locator(".code")).to_have_text(code)
        page.get_by_role("button", name="Sign in with Acme").click()
        there()
        expect(page.get_by_role("heading")).to_have_text("You are signed in")
        assert up.wait(HANGING) == 0, shown.read_text()
        assert shown.read_text().count("sign in here") == 1
        assert world.live(user)
        with Echo(world.lan, world.lan.address, 7000):
            world.reaches_lan(peer)
    finally:
        end(up)
        peer.machine.run(*peer.command("down"), check=False)


def asked(shown: str) -> tuple[str, str] | None:
    """Address and code, once both are there."""
    found = re.search(r"sign in here: (\S+).*?must show the code (\S{7})", shown, re.DOTALL)
    return (found[1], found[2]) if found else None


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait(HANGING)
