"""The self-signed certificate of web."""

from __future__ import annotations

import datetime
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from vpnproject.runner import front, privileges
from vpnproject.runner.certificate import (
    Pair,
    certificate_for,
    ensure_certificate,
    fingerprint,
    make_certificate,
    renew_in_time,
)

NOW = datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "certificate.pem", tmp_path / "certificate_key.pem"


def names(path: Path) -> list[str]:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in found]


@pytest.mark.parametrize("address", ["198.51.100.7", "2001:db8::7", "vpn.example.com", "x" * 60 + ".example.com"])
def test_the_address_is_its_alternative_name(pair: tuple[Path, Path], address: str) -> None:
    assert ensure_certificate(*pair, address, NOW) == "made"
    assert names(pair[0]) == [address]


def test_the_key_is_p256_in_pkcs8_and_private(pair: tuple[Path, Path]) -> None:
    ensure_certificate(*pair, "198.51.100.7", NOW)
    data = pair[1].read_bytes()
    assert data.startswith(b"-----BEGIN PRIVATE KEY-----")
    key = serialization.load_pem_private_key(data, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert stat.S_IMODE(pair[1].stat().st_mode) == 0o600


def test_a_good_one_is_kept(pair: tuple[Path, Path]) -> None:
    ensure_certificate(*pair, "198.51.100.7", NOW)
    before = fingerprint(pair[0])
    assert ensure_certificate(*pair, "198.51.100.7", NOW + datetime.timedelta(days=790)) == ""
    assert fingerprint(pair[0]) == before


def test_it_is_renewed_when_the_address_changes(pair: tuple[Path, Path]) -> None:
    ensure_certificate(*pair, "198.51.100.7", NOW)
    assert "address changed" in ensure_certificate(*pair, "vpn.example.com", NOW)
    assert names(pair[0]) == ["vpn.example.com"]


def test_it_is_renewed_before_it_expires(pair: tuple[Path, Path]) -> None:
    ensure_certificate(*pair, "198.51.100.7", NOW)
    later = NOW + datetime.timedelta(days=800)
    assert "expire" in ensure_certificate(*pair, "198.51.100.7", later)
    assert x509.load_pem_x509_certificate(pair[0].read_bytes()).not_valid_after_utc > later


def test_a_pair_that_does_not_match_is_replaced(pair: tuple[Path, Path], tmp_path: Path) -> None:
    ensure_certificate(*pair, "198.51.100.7", NOW)
    other = (tmp_path / "other.pem", tmp_path / "other_key.pem")
    ensure_certificate(*other, "198.51.100.7", NOW)
    pair[1].write_bytes(other[1].read_bytes())
    assert "did not match" in ensure_certificate(*pair, "198.51.100.7", NOW)
    assert ensure_certificate(*pair, "198.51.100.7", NOW) == ""


def test_a_damaged_one_is_replaced(pair: tuple[Path, Path]) -> None:
    ensure_certificate(*pair, "198.51.100.7", NOW)
    pair[0].write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert "could not be read" in ensure_certificate(*pair, "198.51.100.7", NOW)


def test_somebody_elses_certificate_is_left_alone(pair: tuple[Path, Path]) -> None:
    """An administrator may have put one from a real authority there, for a name that bin/run does not know."""
    key = ec.generate_private_key(ec.SECP256R1())
    ours = make_certificate(key, "vpn.example.com", NOW)
    authority = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "Some CA")])
    signed = (
        x509.CertificateBuilder(issuer, ours.subject, ours.public_key(), 5, NOW, NOW + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("vpn.example.com")]), critical=False)
        .sign(authority, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    pair[0].write_bytes(signed.public_bytes(pem))
    none = serialization.NoEncryption()
    pair[1].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, none))
    assert ensure_certificate(*pair, "198.51.100.7", NOW) == ""
    assert not renew_in_time(*pair, NOW + datetime.timedelta(days=810))
    assert names(pair[0]) == ["vpn.example.com"]


def test_each_new_pair_is_handed_over_once_and_never_half_of_one(pair: tuple[Path, Path], tmp_path: Path) -> None:
    taken: list[bytes] = []
    watched = Pair(*pair, lambda: taken.append(pair[0].read_bytes()))
    assert not watched.renewed()
    ensure_certificate(*pair, "198.51.100.7", NOW)
    assert watched.renewed()
    assert not watched.renewed()
    other = (tmp_path / "other.pem", tmp_path / "other_key.pem")
    ensure_certificate(*other, "198.51.100.7", NOW)
    pair[1].write_bytes(other[1].read_bytes())
    assert not watched.renewed()
    pair[0].write_bytes(other[0].read_bytes())
    assert watched.renewed()
    assert taken == [taken[0], other[0].read_bytes()]


def test_a_pair_that_could_not_be_handed_over_is_tried_again(pair: tuple[Path, Path]) -> None:
    failing = [True]

    def hand_over() -> None:
        if failing:
            raise PermissionError(13, "Permission denied")

    watched = Pair(*pair, hand_over)
    ensure_certificate(*pair, "198.51.100.7", NOW)
    assert not watched.renewed()
    failing.clear()
    assert watched.renewed()


def test_the_front_gets_copies_that_it_alone_reads_also_of_an_administrators_links(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "HOMES", tmp_path / "fronts")
    home = front.directory("x")
    front.prepare(home)
    ensure_certificate(*pair, "198.51.100.7", NOW)
    links = tmp_path / "link.pem", tmp_path / "link_key.pem"
    for link, path in zip(links, pair, strict=True):
        link.symlink_to(path)
    front.take_pair(home, *links)
    copy = home / "conf" / "key.pem"
    assert copy.read_bytes() == pair[1].read_bytes()
    assert not copy.is_symlink()
    assert (copy.stat().st_uid, copy.stat().st_mode & 0o777) == (privileges.uid("vpn-front"), 0o400)
    assert pair[1].stat().st_uid == 0


@pytest.mark.parametrize(("days", "renewed"), [(0, False), (790, False), (796, True), (900, True), (-5, True)])
def test_while_the_server_runs_it_is_renewed_before_its_end(pair: tuple[Path, Path], days: int, renewed: bool) -> None:
    """Also one of a time when the clock was ahead."""
    ensure_certificate(*pair, "198.51.100.7", NOW)
    before = fingerprint(pair[0])
    later = NOW + datetime.timedelta(days=days)
    assert renew_in_time(*pair, later) == renewed
    assert (fingerprint(pair[0]) != before) == renewed
    assert names(pair[0]) == ["198.51.100.7"]
    if renewed:
        assert x509.load_pem_x509_certificate(pair[0].read_bytes()).not_valid_after_utc > later
        assert Pair(*pair).renewed()
        assert not renew_in_time(*pair, later)


def test_it_keeps_all_its_names_when_it_is_renewed(pair: tuple[Path, Path]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    both = [x509.DNSName("vpn.example.com"), x509.DNSName("vpn.example.org")]
    pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
    pair[0].write_bytes(certificate_for(key, x509.SubjectAlternativeName(both), NOW).public_bytes(pem))
    pair[1].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, none))
    assert renew_in_time(*pair, NOW + datetime.timedelta(days=810))
    assert names(pair[0]) == ["vpn.example.com", "vpn.example.org"]


def test_half_of_a_pair_that_somebody_is_just_replacing_is_left_alone(pair: tuple[Path, Path], tmp_path: Path) -> None:
    ensure_certificate(*pair, "198.51.100.7", NOW)
    other = (tmp_path / "other.pem", tmp_path / "other_key.pem")
    ensure_certificate(*other, "198.51.100.7", NOW)
    pair[1].write_bytes(other[1].read_bytes())
    before = pair[0].read_bytes(), pair[1].read_bytes()
    assert not renew_in_time(*pair, NOW + datetime.timedelta(days=810))
    pair[1].unlink()
    assert not renew_in_time(*pair, NOW + datetime.timedelta(days=810))
    assert pair[0].read_bytes() == before[0]
