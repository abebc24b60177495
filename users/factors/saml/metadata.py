"""What a provider's metadata says of it, and what ours says of us (SAML 2.0 metadata)."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree

from users.signin.addresses import is_secure

from .xml import (
    METADATA,
    POST_BINDING,
    PROTOCOL,
    REDIRECT_BINDING,
    SIGNATURE,
    Element,
    Unusable,
    children,
    parse,
    tag,
    text_of,
)

# Bytes.
LONGEST = 256 * 1024
MOST_CERTIFICATES = 10


@dataclass(frozen=True, slots=True)
class IdentityProvider:
    """``sign_in``: where browsers go with a request (redirect binding). ``wants_signed``: whether it takes signed
    requests only. ``certificates``: any of their keys signs."""

    entity_id: str
    sign_in: str
    certificates: tuple[x509.Certificate, ...]
    wants_signed: bool


def read(text: str) -> IdentityProvider:
    """Raise ``Unusable``."""
    data = text.encode()
    if len(data) > LONGEST:
        raise Unusable(f"It is longer than {LONGEST // 1024} KiB: give the metadata of one provider alone.")
    root = parse(data, comments=True)
    if root.tag != tag(METADATA, "EntityDescriptor"):
        raise Unusable("It is not the metadata of one provider, which begins with EntityDescriptor.")
    roles = children(root, METADATA, "IDPSSODescriptor")
    if len(roles) != 1 or PROTOCOL not in str(roles[0].get("protocolSupportEnumeration") or "").split():
        raise Unusable("It is not of a provider at which people sign in by SAML 2.0 (IDPSSODescriptor).")
    entity_id = str(root.get("entityID") or "")
    if not 0 < len(entity_id) <= 1024:
        raise Unusable("It does not say who the provider is (entityID).")
    wants_signed = str(roles[0].get("WantAuthnRequestsSigned")) in ("true", "1")
    return IdentityProvider(entity_id, _sign_in_address(roles[0]), _certificates(roles[0]), wants_signed)


def _sign_in_address(role: Element) -> str:
    for service in children(role, METADATA, "SingleSignOnService"):
        address = str(service.get("Location") or "")
        if service.get("Binding") == REDIRECT_BINDING and is_secure(address):
            return address
    raise Unusable("It names no https address to sign in at by redirect (SingleSignOnService, HTTP-Redirect).")


def _certificates(role: Element) -> tuple[x509.Certificate, ...]:
    found: dict[bytes, x509.Certificate] = {}
    for key in children(role, METADATA, "KeyDescriptor"):
        if key.get("use", "signing") == "signing":
            for each in key.iter(tag(SIGNATURE, "X509Certificate")):
                certificate = _certificate(text_of(each))
                found[certificate.public_bytes(Encoding.DER)] = certificate
    if not 0 < len(found) <= MOST_CERTIFICATES:
        raise Unusable(f"It must have between one and {MOST_CERTIFICATES} certificates to sign with.")
    return tuple(found.values())


def _certificate(text: str) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode("".join(text.split()), validate=True))
        key = certificate.public_key()
    except ValueError:
        raise Unusable("One of its certificates cannot be read.") from None
    strong = isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048
    if not strong and not (isinstance(key, ec.EllipticCurvePublicKey) and key.key_size >= 256):
        raise Unusable("The key of one of its certificates is neither RSA of 2048 bits or more nor ECDSA of 256.")
    return certificate


def ours(entity_id: str, answers: str, certificate: x509.Certificate | None) -> bytes:
    """What a provider wants to know of us. ``answers``: where it has browsers post to; ``certificate``: that we sign
    requests with, None: with none."""
    root = etree.Element(tag(METADATA, "EntityDescriptor"), nsmap={None: METADATA, "ds": SIGNATURE})
    root.set("entityID", entity_id)
    role = etree.SubElement(root, tag(METADATA, "SPSSODescriptor"))
    role.set("AuthnRequestsSigned", "true" if certificate else "false")
    role.set("WantAssertionsSigned", "true")
    role.set("protocolSupportEnumeration", PROTOCOL)
    if certificate:
        key = etree.SubElement(role, tag(METADATA, "KeyDescriptor"), use="signing")
        data = etree.SubElement(etree.SubElement(key, tag(SIGNATURE, "KeyInfo")), tag(SIGNATURE, "X509Data"))
        in_it = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
        etree.SubElement(data, tag(SIGNATURE, "X509Certificate")).text = in_it
    service = etree.SubElement(role, tag(METADATA, "AssertionConsumerService"))
    for name, value in {"Binding": POST_BINDING, "Location": answers, "index": "0", "isDefault": "true"}.items():
        service.set(name, value)
    return bytes(etree.tostring(root, xml_declaration=True, encoding="UTF-8"))
