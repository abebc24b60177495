"""The client that a user's machine gets from the page of their link."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.test import Client

from tests.factories import Company
from tests.lab import PROJECT
from tests.protocol_client import NOW
from users.models import VpnUser
from vpnproject.runner import client_wheel
from vpnproject.runner.certificate import ensure_certificate
from wgpeers.profiles import links


@pytest.fixture
def user(company: Company) -> VpnUser:
    return company.hire("alice")[0]


@pytest.fixture
def wheel(tmp_path: Path, settings: LazySettings) -> tuple[str, bytes]:
    """Name and content of the one that is offered."""
    settings.CLIENT_WHEEL = tmp_path / "client"
    settings.CLIENT_WHEEL.mkdir()
    name, data = client_wheel.build(PROJECT / "client")
    (settings.CLIENT_WHEEL / name).write_bytes(data)
    return name, data


def page(user: VpnUser, host: str) -> str:
    link = links.create(user, NOW)
    return unescape(Client().post(f"/k/{link.short_id.reveal()}", follow=True, HTTP_HOST=host).content.decode())


def self_signed(directory: Path, host: str) -> Path:
    certificate = directory / "certificate.pem"
    ensure_certificate(certificate, directory / "key.pem", host, datetime.now(UTC))
    return certificate


def commands(text: str) -> str:
    return "\n".join(re.findall(r"<pre>(.*?)</pre>", text, re.DOTALL))


def test_the_page_gives_the_client_with_its_digest(user: VpnUser, wheel: tuple[str, bytes]) -> None:
    name, data = wheel
    said = commands(page(user, "vpn.example.com:8443"))
    address, options = re.search(r"curl (-\w+) https://vpn\.example\.com:8443(\S+)", said).group(2, 1)  # type: ignore[union-attr]
    assert address == f"/client/{name}"
    assert options in ("-fO", "-fkO")
    assert f"echo '{hashlib.sha256(data).hexdigest()}  {name}' | sha256sum -c" in said
    response = Client().get(address, HTTP_HOST="vpn.example.com:8443")
    assert (response.status_code, response.content) == (200, data)


@pytest.mark.parametrize("host", ["vpn.example.com", "192.0.2.7"])
def test_certificates_are_looked_at_where_they_can_be(
    user: VpnUser, wheel: object, settings: LazySettings, tmp_path: Path, host: str
) -> None:
    settings.CERTIFICATE = self_signed(tmp_path, host)
    text = page(user, host)
    assert "curl -fkO" in text
    assert "compare the long number" in text
    settings.TRUSTED_PROXIES = ["192.0.2.1"]  # whose certificate it is that users see
    assert "curl -fO" in page(user, host)
    assert "compare the long number" not in page(user, host)


def test_who_cannot_import_by_an_address_imports_the_file(
    user: VpnUser, wheel: object, settings: LazySettings, tmp_path: Path
) -> None:
    settings.CERTIFICATE = self_signed(tmp_path, "vpn.example.com")
    assert "wgpeer add FILE.tar" in commands(page(user, "vpn.example.com"))
    assert "wgpeer add pritunl://192.0.2.7/ku/" in commands(page(user, "192.0.2.7"))


def test_a_server_that_has_no_client_says_nothing_of_it(user: VpnUser, settings: LazySettings, tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "nowhere"):
        settings.CLIENT_WHEEL = directory
        text = page(user, "vpn.example.com")
        assert "Download" in text or "download" in text
        assert "curl" not in text


@pytest.mark.parametrize("name", ["wgpeer-9-py3-none-any.whl", "..", ".", "certificate.pem", "", "a/b", "%2e%2e%2fx"])
def test_nothing_but_the_client_is_given_out(wheel: object, settings: LazySettings, name: str) -> None:
    (settings.CLIENT_WHEEL.parent / "certificate.pem").write_text("beside it")
    response = Client().get(f"/client/{name}")
    assert (response.status_code, response.json()["error"]) == (404, "not_found")
