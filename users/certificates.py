"""RSA-4096 keys and X.509 certificates of organizations (their own CA) and users.

Profiles carry them as PEM, see docs/PROTOCOL.md. All of this takes about half a second a key: call it from the
``keys`` queue, never from a request.
"""

from __future__ import annotations

from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from core.certificates import begin, pem

KEY_BITS = 4096


def make_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)


def public_pem(key: rsa.RSAPrivateKey) -> str:
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def load_private(pem: str) -> rsa.RSAPrivateKey:
    # Only for keys that we made: the checks that are left out here cost 300 ms.
    key = serialization.load_pem_private_key(pem.encode(), None, unsafe_skip_rsa_key_validation=True)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError("not an RSA key")
    return key


def _name(organization: str, common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _cut(organization)),
            x509.NameAttribute(NameOID.COMMON_NAME, _cut(common_name)),
        ]
    )


def _cut(name: str) -> str:
    # X.520 limits both to 64 characters; the library counts bytes.
    return name.encode()[:64].decode(errors="ignore")


def make_ca(organization: str, key: rsa.RSAPrivateKey, now: datetime) -> str:
    """The organization's self-signed CA certificate, PEM."""
    name = _name(organization, organization)
    return pem(begin(name, name, key.public_key(), now, ca=True).sign(key, hashes.SHA512()))


def make_user_certificate(
    organization: str, user: str, key: rsa.RSAPrivateKey, ca_pem: str, ca_key: rsa.RSAPrivateKey, now: datetime
) -> str:
    """A client certificate for ``user``, issued by the organization's CA, PEM."""
    ca = x509.load_pem_x509_certificate(ca_pem.encode())
    builder = begin(_name(organization, user), ca.subject, key.public_key(), now, ca=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    return pem(builder.add_extension(issuer, critical=False).sign(ca_key, hashes.SHA512()))
