"""Certificates and keys of a link that OpenVPN carries: an authority of its own, of which nobody keeps the key, one
certificate for each end, and the static key of tls-crypt. Elliptic curves, so that making them costs milliseconds."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from core.certificates import begin, pem, private_pem

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


def _certificate(text: str, what: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(text.encode())
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
    authority = begin(ca_name, ca_name, ca_key.public_key(), now, ca=True, signs=False)
    ca = pem(authority.sign(ca_key, hashes.SHA384()))
    tls_crypt, names = _static_key(), [f"end-{secrets.token_hex(8)}" for _ in range(2)]
    ends = []
    for name, peer, usage in (
        (names[0], names[1], _side(listens=True)),
        (names[1], names[0], _side(listens=False)),
    ):
        key = ec.generate_private_key(ec.SECP384R1())
        builder = begin(_name(name), ca_name, key.public_key(), now, ca=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        certificate = pem(builder.sign(ca_key, hashes.SHA384()))
        ends.append(EndKeys(name, peer, ca, certificate, private_pem(key), tls_crypt))
    return LinkKeys(*ends)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _static_key() -> str:
    text = secrets.token_hex(STATIC_KEY_BYTES)
    lines = [text[start : start + 32] for start in range(0, len(text), 32)]
    return "\n".join([f"-----BEGIN {STATIC_KEY}-----", *lines, f"-----END {STATIC_KEY}-----"]) + "\n"
