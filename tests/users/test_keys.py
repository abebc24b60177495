"""Keys and certificates: made in the background, once, and they verify."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from core.certificates import private_pem
from core.crypto import Secret
from core.redis_store import redis_client
from tests.concurrency import together
from tests.conftest import Clock
from tests.connection_rows import queued
from tests.lab import HANGING
from tests.protocol_client import NOW, VECTORS
from users import certificates, tasks
from users.models import Organization, VpnUser


@cache
def ca_key() -> rsa.RSAPrivateKey:
    return certificates.make_key()


@pytest.fixture
def organization(transactional_db: None, fixed_clock: Clock) -> Organization:
    """With a CA already: making one takes its time."""
    return Organization.objects.create(
        name="Acme",
        ca_private_key=Secret.of(private_pem(ca_key())),
        ca_certificate=certificates.make_ca("Acme", ca_key(), datetime.fromtimestamp(NOW, UTC)),
    )


@pytest.fixture
def quick_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short ones where a test asks when they are made, not what they are."""
    monkeypatch.setattr(certificates, "make_key", lambda: rsa.generate_private_key(65537, 2048))


def test_the_first_user_of_an_organization_gets_a_chain_that_verifies(
    transactional_db: None, fixed_clock: Clock
) -> None:
    organization = Organization.objects.create(name="Acme")
    user = VpnUser.objects.create(organization=organization, name="alice")
    assert not user.key_ready
    tasks.make_user_key(user.pk)
    user.refresh_from_db()
    organization.refresh_from_db()
    assert user.key_ready
    mine, ca = (x509.load_pem_x509_certificate(pem.encode()) for pem in (user.certificate, organization.ca_certificate))
    key = serialization.load_pem_private_key(user.private_key.reveal().encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == ca.public_key().key_size == 4096
    assert certificates.public_pem(key) == user.public_key
    assert mine.public_key() == key.public_key()
    mine.verify_directly_issued_by(ca)
    ca.verify_directly_issued_by(ca)
    now = datetime.fromtimestamp(NOW, UTC)
    for certificate in (mine, ca):
        assert certificate.not_valid_before_utc <= now - timedelta(hours=23)
        assert abs(certificate.not_valid_after_utc - now - timedelta(days=3652.5)) < timedelta(days=2)
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not mine.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert ExtendedKeyUsageOID.CLIENT_AUTH in mine.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    signature = key.sign(b"x", padding.PKCS1v15(), hashes.SHA512())
    serialization.load_pem_public_key(user.public_key.encode()).verify(
        signature, b"x", padding.PKCS1v15(), hashes.SHA512()
    )


def test_openssl_accepts_the_chain_for_a_client(organization: Organization, quick_keys: None, tmp_path: Path) -> None:
    user = VpnUser.objects.create(organization=organization, name="alice")
    tasks.make_user_key(user.pk)
    user.refresh_from_db()
    ca = x509.load_pem_x509_certificate(organization.ca_certificate.encode())
    mine = x509.load_pem_x509_certificate(user.certificate.encode())
    assert mine.issuer == ca.subject
    authority = mine.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    subject = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert authority.key_identifier == subject.key_identifier
    (tmp_path / "ca.pem").write_text(organization.ca_certificate)
    (tmp_path / "user.pem").write_text(user.certificate)
    command = ["openssl", "verify", "-attime", str(NOW), "-x509_strict", "-purpose", "sslclient", "-CAfile", "ca.pem"]
    done = subprocess.run(
        [*command, "user.pem"], cwd=tmp_path, capture_output=True, text=True, timeout=HANGING, check=False
    )
    assert done.stdout == "user.pem: OK\n", done.stderr


def test_a_second_making_keeps_the_first(organization: Organization, quick_keys: None) -> None:
    user = VpnUser.objects.create(organization=organization, name="alice")
    tasks.make_user_key(user.pk)
    first = VpnUser.objects.get(pk=user.pk).certificate
    tasks.make_user_key(user.pk)
    assert VpnUser.objects.get(pk=user.pk).certificate == first


def test_who_is_overtaken_while_making_a_key_keeps_the_faster_ones(
    transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers found the same user, and the same organization, without."""
    organization = Organization.objects.create(name="Acme")
    user = VpnUser.objects.create(organization=organization, name="alice")
    faster: list[str] = []

    def make_while_overtaken() -> rsa.RSAPrivateKey:
        if not faster:
            faster.append("running")
            tasks.make_user_key(user.pk)
            faster[:] = [VpnUser.objects.get().certificate, Organization.objects.get().ca_certificate]
        return rsa.generate_private_key(65537, 2048)

    monkeypatch.setattr(certificates, "make_key", make_while_overtaken)
    tasks.make_user_key(user.pk)
    assert [VpnUser.objects.get().certificate, Organization.objects.get().ca_certificate] == faster
    assert all(faster)


def test_of_three_makings_at_once_one_is_kept_whole(quick_keys: None, transactional_db: None) -> None:
    organization = Organization.objects.create(name="Acme")
    user = VpnUser.objects.create(organization=organization, name="alice")
    assert together([partial(tasks.make_user_key, user.pk)] * 3) == [None] * 3
    user.refresh_from_db()
    organization.refresh_from_db()
    mine = x509.load_pem_x509_certificate(user.certificate.encode())
    key = certificates.load_private(user.private_key.reveal())
    assert mine.public_key() == key.public_key()
    assert certificates.public_pem(key) == user.public_key
    mine.verify_directly_issued_by(x509.load_pem_x509_certificate(organization.ca_certificate.encode()))
    ca = certificates.load_private(organization.ca_private_key.reveal())
    assert ca.public_key() == x509.load_pem_x509_certificate(organization.ca_certificate.encode()).public_key()


def test_of_three_cas_at_once_one_is_kept_whole(quick_keys: None, transactional_db: None) -> None:
    organization = Organization.objects.create(name="Acme")
    together([partial(tasks.make_organization_ca, organization.pk)] * 3)
    organization.refresh_from_db()
    ca = certificates.load_private(organization.ca_private_key.reveal())
    assert ca.public_key() == x509.load_pem_x509_certificate(organization.ca_certificate.encode()).public_key()


def test_who_is_gone_or_has_a_key_is_left_quietly(organization: Organization, monkeypatch: pytest.MonkeyPatch) -> None:
    user = VpnUser.objects.create(organization=organization, name="alice", certificate="there already")
    monkeypatch.setattr(certificates, "make_key", lambda: pytest.fail("made a key"))
    tasks.make_user_key(user.pk)
    tasks.make_user_key(10**9)
    tasks.make_organization_ca(10**9)
    tasks.make_organization_ca(organization.pk)


def test_saving_an_old_copy_does_not_take_the_key_away(organization: Organization, quick_keys: None) -> None:
    user = VpnUser.objects.create(organization=organization, name="alice")
    stale = VpnUser.objects.get(pk=user.pk)
    tasks.make_user_key(user.pk)
    stale.email = "alice@example.com"
    stale.save()
    fresh = VpnUser.objects.get(pk=user.pk)
    assert (fresh.email, fresh.key_ready) == ("alice@example.com", True)
    assert fresh.private_key


def test_an_import_of_a_thousand_makes_no_key_inline_and_queues_them_all(
    organization: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "make_key", lambda: pytest.fail("made a key in the request"))
    redis_client().delete("keys")
    users = [VpnUser(organization=organization, name=f"user-{number}") for number in range(1000)]
    VpnUser.objects.bulk_create(users)
    asked: set[int] = set()
    for _ in range(5):
        tasks.make_missing()
        tasks.make_missing()  # while there is work in the queue, no more of it
        batch = {arguments[0] for name, arguments in queued("keys") if name == "users.make_user_key"}
        assert len(batch) == tasks.BATCH
        VpnUser.objects.filter(pk__in=batch).update(certificate="made")
        asked |= batch
    assert asked == set(VpnUser.objects.values_list("pk", flat=True))
    tasks.make_missing()
    assert queued("keys") == []


def test_each_new_user_and_organization_is_queued_after_commit(transactional_db: None) -> None:
    from django.db import transaction

    with transaction.atomic():
        organization = Organization.objects.create(name="New")
        user = VpnUser.objects.create(organization=organization, name="alice")
        assert queued("keys") == []
    assert queued("keys") == [("users.make_organization_ca", [organization.pk]), ("users.make_user_key", [user.pk])]
    user.save()
    assert queued("keys") == []


@pytest.mark.parametrize("name", ["a", "x" * 64, "ж" * 64, "日" * 64, "J. O'Neil"[:4]])
def test_any_name_that_the_model_takes_fits_into_a_certificate(name: str) -> None:
    now = datetime.fromtimestamp(NOW, UTC)
    key = certificates.load_private(VECTORS["user_private_key_pkcs8"])
    ca = certificates.make_ca(name, key, now)
    mine = x509.load_pem_x509_certificate(certificates.make_user_certificate(name, name, key, ca, key, now).encode())
    (common_name,) = mine.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name.startswith(str(common_name.value))
    assert common_name.value


def test_a_key_of_another_kind_is_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(TypeError):
        certificates.load_private(pem.decode())
