"""What browsers are told to hold people's pages to, and that programs' answers carry none of it."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from django.conf import LazySettings
from django.test import Client

from vpnproject.runner.certificate import make_certificate

NOW = datetime.datetime(2026, 9, 21, tzinfo=datetime.UTC)
HSTS = "Strict-Transport-Security"
POLICY = "Content-Security-Policy"


def signed_by_another() -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(
        issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "An Authority")]),
        subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vpn.example.com")]),
        public_key=key.public_key(),
        serial_number=7,
        not_valid_before=NOW,
        not_valid_after=NOW + datetime.timedelta(days=90),
    )
    return builder.sign(key, hashes.SHA256())


def write(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


@pytest.fixture
def certificate(settings: LazySettings, tmp_path: Path) -> Path:
    settings.CERTIFICATE = tmp_path / "certificate.pem"
    write(settings.CERTIFICATE, signed_by_another())
    return tmp_path / "certificate.pem"


def sign_in_page(**how: Any) -> Any:
    return Client().get("/admin/login/", **{"secure": True} | how)


@pytest.mark.django_db
def test_the_admin_runs_its_own_files_alone_and_is_framed_by_nobody(client: Client) -> None:
    policy = dict(part.split(" ", 1) for part in client.get("/admin/login/")[POLICY].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == "'self' 'unsafe-eval'"
    assert policy["form-action"] == "'self'"
    assert client.get("/admin/")[POLICY] == client.get("/admin/login/")[POLICY]


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/", "/nothing", "/static/core/admin.js", "/k/unknown"])
def test_whatever_else_a_browser_shows_runs_nothing(client: Client, path: str) -> None:
    policy = client.get(path, headers={"accept": "text/html"})[POLICY]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script-src" not in policy


def test_a_refused_host_name_too(client: Client, settings: LazySettings) -> None:
    settings.ADMIN_HOSTS = ["vpn.example.com"]
    response = client.get("/admin/")
    assert response.status_code == 400
    assert "default-src 'none'" in response[POLICY]


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/key/wg/a/b/c", "/key/unknown.tar", "/ku/unknown", "/k/unknown"])
def test_programs_answers_carry_none_of_it(client: Client, certificate: Path, path: str) -> None:
    response = client.get(path, secure=True)
    assert POLICY not in response.headers
    assert HSTS not in response.headers


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/key/unknown.tar", "/ku/unknown", "/k/unknown"])
def test_a_link_opened_in_a_browser_is_a_page(client: Client, certificate: Path, path: str) -> None:
    response = client.get(path, secure=True, headers={"accept": "text/html"})
    assert "frame-ancestors 'none'" in response[POLICY]
    assert HSTS in response.headers


@pytest.mark.django_db
def test_https_is_kept_to_where_somebody_else_signed_the_certificate(certificate: Path, settings: LazySettings) -> None:
    assert sign_in_page()[HSTS] == "max-age=2592000"
    assert HSTS not in sign_in_page(secure=False)
    settings.HSTS_SECONDS = 0
    assert HSTS not in sign_in_page()


@pytest.mark.django_db
def test_with_a_self_signed_certificate_or_none_it_is_not_said(certificate: Path) -> None:
    assert HSTS in sign_in_page()
    write(certificate, make_certificate(ec.generate_private_key(ec.SECP256R1()), "192.0.2.10", NOW))
    assert HSTS not in sign_in_page()  # looked at anew
    certificate.write_text("no certificate")
    assert HSTS not in sign_in_page()
    certificate.unlink()
    assert HSTS not in sign_in_page()
