"""Which import addresses clients can use."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from django.conf import LazySettings
from django.test import Client

from core import import_links
from tests.admin_site import staff
from tests.conftest import Clock
from tests.factories import Company
from tests.protocol_client import NOW
from vpnproject.runner.announce import announce
from vpnproject.runner.certificate import make_certificate
from wgpeers.profiles import links

BY_ANY = ["203.0.113.5", "203.0.113.5:8443", "[2001:db8::5]"]
BY_TRUST_ALONE = ["vpn.example.com", "vpn.example.com:8443", "[2001:db8::5]:8443", "localhost", "", "[broken"]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed one."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = make_certificate(key, "vpn.example.com", datetime.now(UTC))
    path = tmp_path / "certificate.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return path


def sign(certificate: Path) -> None:
    """Put one in its place that somebody else signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    old = x509.load_pem_x509_certificate(certificate.read_bytes())
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "An authority")]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(old.not_valid_after_utc)
    )
    certificate.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


@pytest.mark.parametrize("host", [*BY_ANY, *BY_TRUST_ALONE])
def test_with_a_self_signed_certificate_only_what_clients_do_not_verify_is_usable(certificate: Path, host: str) -> None:
    assert import_links.usable(host, certificate) is (host in BY_ANY)
    sign(certificate)
    assert import_links.usable(host, certificate)
    certificate.unlink()
    assert import_links.usable(host, certificate)


ROWS = {"short": "abc", "user": "alice", "server": "main", "admin": "admin", "password": "secret"}


def said(url: str, certificate: Path) -> str:
    lines: list[str] = []
    announce(lines.append, url, certificate.parent, ROWS)
    return "\n".join(lines)


def test_bin_run_prints_no_link_that_cannot_be_used_and_says_what_helps(certificate: Path) -> None:
    by_name = said("https://vpn.example.com", certificate)
    assert "pritunl://" not in by_name
    assert "https://vpn.example.com/k/abc" in by_name
    assert "Download the .tar there" in by_name
    assert f"Put certificate.pem and certificate_key.pem into {certificate.parent}" in by_name
    by_address = said("https://203.0.113.5", certificate)
    assert "pritunl://203.0.113.5/ku/abc" in by_address
    assert ".tar" not in by_address
    assert "self-signed" in by_address
    sign(certificate)
    signed = said("https://vpn.example.com", certificate)
    assert "pritunl://vpn.example.com/ku/abc" in signed
    assert "self-signed" not in signed
    assert "secret (shown only now)" in signed


def test_pages_show_no_import_address_that_cannot_be_used(
    client: Client, company: Company, fixed_clock: Clock, settings: LazySettings, certificate: Path
) -> None:
    settings.CERTIFICATE = certificate
    settings.API_URLS = ["https://vpn.example.com"]
    user = company.hire("alice")[0]
    staff(client, superuser=True)
    link = links.create(user, NOW)
    client.post(f"/k/{link.short_id.reveal()}")
    pages = {
        "page": (f"/k/{link.short_id.reveal()}", "import the file"),
        "admin": (f"/admin/users/vpnuser/{user.pk}/change/", "There is no import address"),
    }
    for path, words in pages.values():
        text = client.get(path, headers={"Host": "vpn.example.com"}).content.decode()
        assert ("pritunl://" in text, words in text, ".tar" in text) == (False, True, True)
    settings.TRUSTED_PROXIES = ["192.0.2.1"]  # whose certificate it is that clients see
    for path, words in pages.values():
        text = client.get(path, headers={"Host": "vpn.example.com"}).content.decode()
        assert ("pritunl://vpn.example.com/ku/" in text, words in text) == (True, False)
