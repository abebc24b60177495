"""What the X.509 certificates that we issue have in common, whoever they are for."""

from __future__ import annotations

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

VALID = timedelta(days=3653)  # ten years
# Clocks of others run behind: a certificate made this minute must be valid by them too.
BACKDATED = timedelta(days=1)

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


def begin(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, now: datetime, *, ca: bool, signs: bool = True
) -> x509.CertificateBuilder:
    """A certificate of ``key``, to be added to and signed; ``ca``: of an authority that issues others. ``signs``:
    whether the key may sign anything but certificates."""
    usage = x509.KeyUsage(
        digital_signature=signs,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        .add_extension(usage, critical=True)
    )


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def private_pem(key: PrivateKey) -> str:
    """PKCS#8 PEM, not encrypted: it is encrypted as a whole where it is stored."""
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()
