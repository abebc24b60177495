"""The self-signed certificate of web. Clients do not depend on it: every request carries proofs of its own."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .files import write_private

# Browsers refuse certificates that live longer than this.
LIFETIME = datetime.timedelta(days=825)
RENEW_BEFORE = datetime.timedelta(days=30)


def ensure_certificate(certificate: Path, key: Path, address: str, now: datetime.datetime) -> str:
    """Make or renew the certificate for ``address`` (an IP address or DNS name) where it is needed.

    Returns words about what was done, empty when it was good as it was. A certificate that is not self-signed is
    somebody's own and left alone.
    """
    reason = _why_new(certificate, key, address, now)
    if not reason:
        return ""
    _write_new(certificate, key, x509.SubjectAlternativeName([_alternative(address)]), now)
    return reason


def renew_in_time(certificate: Path, key: Path, now: datetime.datetime) -> bool:
    """While the server runs: make a self-signed certificate that ends soon anew, for the names that it has. Whether
    that was needed. Whatever else may be wrong with the pair is left to who is just changing it, or to the next start.
    """
    try:
        old = x509.load_pem_x509_certificate(certificate.read_bytes())
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
        names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, x509.ExtensionNotFound):
        return False
    if old.issuer != old.subject or old.public_key() != private.public_key() or not _is_due(old, now):
        return False
    _write_new(certificate, key, names, now)
    return True


def _write_new(certificate: Path, key: Path, names: x509.SubjectAlternativeName, now: datetime.datetime) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    # The key first: a crash between the two leaves a pair that does not match, which the next start sees and renews.
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    write_private(key, private.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    write_private(certificate, certificate_for(private, names, now).public_bytes(pem))


def make_certificate(key: ec.EllipticCurvePrivateKey, address: str, now: datetime.datetime) -> x509.Certificate:
    """A self-signed server certificate with ``address`` as its one subject alternative name."""
    return certificate_for(key, x509.SubjectAlternativeName([_alternative(address)]), now)


def certificate_for(
    key: ec.EllipticCurvePrivateKey, names: x509.SubjectAlternativeName, now: datetime.datetime
) -> x509.Certificate:
    """A self-signed server certificate for ``names``."""
    # A common name has at most 64 characters; nothing reads it where there is an alternative name.
    first = str(next(iter(names)).value)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, first[:64])])
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        # An hour back, for a browser whose clock is behind.
        not_valid_before=now - datetime.timedelta(hours=1),
        not_valid_after=now + LIFETIME,
    )
    return (
        builder.add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )


class Pair:
    """A certificate and its key, as files that are replaced now and then, by whoever renews them. ``hand_over`` gives
    each new pair to those who use it."""

    def __init__(self, certificate: Path, key: Path, hand_over: Callable[[], None] = lambda: None) -> None:
        self.certificate = certificate
        self.key = key
        self._hand_over = hand_over
        self._seen: object = None

    def renewed(self) -> bool:
        """Whether there is another pair than at the last call. Half of one does not count: the other half follows."""
        try:
            now = [
                (status.st_ino, status.st_size, status.st_mtime_ns)
                for status in (self.certificate.stat(), self.key.stat())
            ]
            if now == self._seen or not self._match():
                return False
            self._hand_over()
        except (OSError, ValueError):
            return False
        self._seen = now
        return True

    def renew_in_time(self, now: datetime.datetime) -> bool:
        return renew_in_time(self.certificate, self.key, now)

    def again(self) -> None:
        """Those who use it could not be told: have the next call of ``renewed`` say so once more."""
        self._seen = None

    def _match(self) -> bool:
        certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        key = serialization.load_pem_private_key(self.key.read_bytes(), password=None)
        return certificate.public_key() == key.public_key()


def _alternative(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _why_new(certificate: Path, key: Path, address: str, now: datetime.datetime) -> str:
    try:
        old = x509.load_pem_x509_certificate(certificate.read_bytes())
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except FileNotFoundError:
        return "made"
    except ValueError:
        return "made anew: the old one could not be read"
    if old.issuer != old.subject:
        return ""
    if old.public_key() != private.public_key():
        return "made anew: the old one and its key did not match"
    if _is_due(old, now):
        return "renewed: the old one was about to expire"
    if _alternative(address) not in old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value:
        return "made anew: the public address changed"
    return ""


def _is_due(old: x509.Certificate, now: datetime.datetime) -> bool:
    """Also of one from a time when the clock was ahead: browsers refuse it until then."""
    return old.not_valid_after_utc - now < RENEW_BEFORE or now < old.not_valid_before_utc


def fingerprint(certificate: Path) -> str:
    """SHA-256 of the certificate as browsers show it: ``AB:CD:…``."""
    return x509.load_pem_x509_certificate(certificate.read_bytes()).fingerprint(hashes.SHA256()).hex(":").upper()
