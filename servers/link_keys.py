"""Certificates and keys of a link that OpenVPN carries: an authority of its own, of which nobody keeps the key, one
certificate for each end, and the static key of tls-crypt. Elliptic curves, so that making them costs milliseconds."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID = timedelta(days=3653)  # ten years
BACKDATED = timedelta(days=1)  # the other end's clock may run behind
STATIC_KEY_BYTES = 256
STATIC_KEY = "OpenVPN Static key V1"
_STATIC_KEY = re.compile(rf"-----BEGIN {STATIC_KEY}-----\n(?:[0-9a-f]{{32}}\n){{16}}-----END {STATIC_KEY}-----\n")


@dataclass(frozen=True, slots=True)
class EndKeys:
    """``name`` is in the end's own certificate, ``peer`` in that of the other one. All others are PEM, and
    ``tls_crypt`` is in OpenVPN's own form."""

    name: str
    peer: str
    authority: str
    certificate: str
    key: str = field(repr=False)
    tls_crypt: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class LinkKeys:
    """``server`` are those of the end that listens, ``client`` those of the other one."""

    server: EndKeys
    client: EndKeys

    def to_text(self) -> str:
        return json.dumps({"server": plain(self.server), "client": plain(self.client)})

    def of(self, *, listens: bool) -> EndKeys:
        return self.server if listens else self.client

    @classmethod
    def from_text(cls, text: str) -> LinkKeys:
        data = json.loads(text)
        return cls(end_from(data["server"]), end_from(data["client"]))


def plain(keys: EndKeys) -> dict[str, str]:
    return {name: getattr(keys, name) for name in EndKeys.__slots__}


def end_from(data: Mapping[str, Any]) -> EndKeys:
    """Raise ``KeyError`` where one is missing."""
    return EndKeys(**{name: str(data[name]) for name in EndKeys.__slots__})


def check(keys: EndKeys, *, listens: bool, now: datetime) -> None:
    """Raise ``ValueError``, in words without a key, where openvpn could not use them for that side of a link at
    ``now``."""
    authority, certificate = _certificate(keys.authority, "authority"), _certificate(keys.certificate, "certificate")
    try:
        private = serialization.load_pem_private_key(keys.key.encode(), None)
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise ValueError("its key cannot be read, or its certificate is not of its authority") from None
    if private.public_key() != certificate.public_key():
        raise ValueError("its key is not that of its certificate")
    if certificate.subject != _name(keys.name) or _usages(certificate) != {_side(listens)}:
        raise ValueError("its certificate is for somebody else")
    if (
        not certificate.not_valid_before_utc
        <= now
        <= min(certificate.not_valid_after_utc, authority.not_valid_after_utc)
    ):
        raise ValueError("its certificate is not valid now")
    if not _STATIC_KEY.fullmatch(keys.tls_crypt):
        raise ValueError("its tls-crypt key is none")


def _certificate(pem: str, what: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        raise ValueError(f"its {what} cannot be read") from None


def _usages(certificate: x509.Certificate) -> set[x509.ObjectIdentifier]:
    try:
        return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except (x509.ExtensionNotFound, ValueError):
        return set()


def _side(listens: bool) -> x509.ObjectIdentifier:
    return ExtendedKeyUsageOID.SERVER_AUTH if listens else ExtendedKeyUsageOID.CLIENT_AUTH


def make(now: datetime) -> LinkKeys:
    ca_key, ca_name = ec.generate_private_key(ec.SECP384R1()), _name(f"link-{secrets.token_hex(8)}")
    authority = _builder(ca_name, ca_name, ca_key.public_key(), now)
    authority = authority.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    authority = authority.add_extension(_usage(ca=True), critical=True)
    ca = _pem(authority.sign(ca_key, hashes.SHA384()))
    tls_crypt, names = _static_key(), [f"end-{secrets.token_hex(8)}" for _ in range(2)]
    ends = []
    for name, peer, usage in (
        (names[0], names[1], _side(listens=True)),
        (names[1], names[0], _side(listens=False)),
    ):
        key = ec.generate_private_key(ec.SECP384R1())
        builder = _builder(_name(name), ca_name, key.public_key(), now)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(ca=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        certificate = _pem(builder.sign(ca_key, hashes.SHA384()))
        ends.append(EndKeys(name, peer, ca, certificate, _private_pem(key), tls_crypt))
    return LinkKeys(*ends)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _private_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """PKCS#8, not encrypted: it is encrypted as a whole where it is stored."""
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(pem, pkcs8, serialization.NoEncryption()).decode()


def _static_key() -> str:
    text = secrets.token_hex(STATIC_KEY_BYTES)
    lines = [text[start : start + 32] for start in range(0, len(text), 32)]
    return "\n".join([f"-----BEGIN {STATIC_KEY}-----", *lines, f"-----END {STATIC_KEY}-----"]) + "\n"
