"""What is said of the certificate that web is served with, before it ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.conf import LazySettings
from django.test import Client

from core.web_certificate import warning
from tests.admin_site import staff
from tests.conftest import Clock

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def write(path: Path, begins: datetime, ends: datetime, issuer: str = "Some CA") -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject, by = (
        x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)]) for name in ("vpn.example.com", issuer)
    )
    made = x509.CertificateBuilder(by, subject, key.public_key(), 5, begins, ends).sign(key, hashes.SHA256())
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))


@pytest.mark.parametrize(
    ("lives", "left", "said"),
    [
        (825, 30, ""),
        (825, 15, ""),
        (825, 13, "ends on 2026-12-05 at 00:00 UTC"),
        (90, 13, "ends on"),
        (6, 3, ""),
        (6, 1, "ends on"),
        (90, -1, "ended on 2026-11-21 at 00:00 UTC"),
        (90, 91, "good from 2026-11-23 on only"),
    ],
)
def test_the_end_is_said_two_weeks_before_and_of_short_ones_in_their_last_third(
    tmp_path: Path, lives: int, left: int, said: str
) -> None:
    path, ends = tmp_path / "certificate.pem", NOW + timedelta(days=left)
    write(path, ends - timedelta(days=lives), ends)
    words = warning(path, NOW)
    assert said in words
    assert bool(words) == bool(said)


def test_who_must_renew_it_is_said(tmp_path: Path) -> None:
    path, ends = tmp_path / "certificate.pem", NOW + timedelta(days=5)
    write(path, NOW - timedelta(days=85), ends)
    assert "put certificate.pem and certificate_key.pem into var/" in warning(path, NOW)
    path.unlink()
    write(path, NOW - timedelta(days=85), ends, issuer="vpn.example.com")
    assert "bin/run renews it by itself" in warning(path, NOW)


def test_of_none_or_one_that_cannot_be_read_nothing_is_said(tmp_path: Path) -> None:
    assert warning(tmp_path / "none.pem", NOW) == ""
    (tmp_path / "certificate.pem").write_text("nonsense")
    assert warning(tmp_path / "certificate.pem", NOW) == ""


@pytest.mark.django_db
def test_the_first_page_says_it(client: Client, settings: LazySettings, tmp_path: Path, fixed_clock: Clock) -> None:
    settings.CERTIFICATE = tmp_path / "certificate.pem"
    today = datetime.fromtimestamp(fixed_clock.now, UTC)
    write(settings.CERTIFICATE, today - timedelta(days=80), today + timedelta(days=10))
    staff(client, superuser=True)
    assert "The certificate of this site ends on" in client.get("/admin/").content.decode()
