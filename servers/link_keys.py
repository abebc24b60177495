"""Certificates and keys of a link that OpenVPN carries: an authority of its own, of which nobody keeps the key, one
certificate for each end, and the static key of tls-crypt. Elliptic curves, so that making them costs milliseconds."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from core.certificates import begin, pem, private_pem

STATIC_KEY_BYTES = 256


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

    @classmethod
    def from_text(cls, text: str) -> LinkKeys:
        data = json.loads(text)
        return cls(end_from(data["server"]), end_from(data["client"]))


def plain(keys: EndKeys) -> dict[str, str]:
    return {name: getattr(keys, name) for name in EndKeys.__slots__}


def end_from(data: Mapping[str, Any]) -> EndKeys:
    """Raise ``KeyError`` where one is missing."""
    return EndKeys(**{name: str(data[name]) for name in EndKeys.__slots__})


def make(now: datetime) -> LinkKeys:
    ca_key, ca_name = ec.generate_private_key(ec.SECP384R1()), _name(f"link-{secrets.token_hex(8)}")
    authority = begin(ca_name, ca_name, ca_key.public_key(), now, ca=True, signs=False)
    ca = pem(authority.sign(ca_key, hashes.SHA384()))
    tls_crypt, names = _static_key(), [f"end-{secrets.token_hex(8)}" for _ in range(2)]
    ends = []
    for name, peer, usage in (
        (names[0], names[1], ExtendedKeyUsageOID.SERVER_AUTH),
        (names[1], names[0], ExtendedKeyUsageOID.CLIENT_AUTH),
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
    tag = "OpenVPN Static key V1"
    return "\n".join([f"-----BEGIN {tag}-----", *lines, f"-----END {tag}-----"]) + "\n"
