"""A SAML provider that says what a test wants it to say, true or not."""

from __future__ import annotations

import base64
import datetime
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from lxml import etree
from signxml.algorithms import CanonicalizationMethod, DigestAlgorithm, SignatureMethod
from signxml.signer import XMLSigner

from core import clock

PROTOCOL = "urn:oasis:names:tc:SAML:2.0:protocol"
ASSERTION = "urn:oasis:names:tc:SAML:2.0:assertion"
DS = "http://www.w3.org/2000/09/xmldsig#"
ISSUER = "https://id.acme.example/saml"
SIGN_IN = "https://id.acme.example/sso?tenant=acme"
PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
EMAIL = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/emailaddress"
PLACE = f'<ds:Signature xmlns:ds="{DS}" Id="placeholder"></ds:Signature>'
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def certificate_of(key: Key, *, days: int = 3650) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "id.acme.example")])
    begins = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(7).not_valid_before(begins).not_valid_after(begins + datetime.timedelta(days))
    return made.sign(key, hashes.SHA256())


def pem_of(key: Key) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@cache
def a_key(name: str = "provider") -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


class AnySigner(XMLSigner):
    """Also by what nobody should sign with."""

    def check_deprecated_methods(self) -> None:
        pass


def asked_in(address: str) -> dict[str, str]:
    """What a browser brings to the provider, and of the request in it its id and where to answer."""
    sent = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    request = etree.fromstring(zlib.decompress(base64.b64decode(sent["SAMLRequest"]), -15))
    found = {name: str(value) for name, value in request.attrib.items()}
    return {**sent, **found, "Issuer": str(request.findtext(f"{{{ASSERTION}}}Issuer"))}


def instant(seconds: float) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"


@dataclass
class SamlLiar:
    """``signs``: "assertion", "response", "both" or "nothing". ``says`` is put over what is right (None takes it away);
    ``forge`` changes the whole document after it was signed."""

    key: Key = field(default_factory=a_key)
    signs: str = "assertion"
    method: SignatureMethod = SignatureMethod.RSA_SHA256
    digest: DigestAlgorithm = DigestAlgorithm.SHA256
    says: dict[str, Any] = field(default_factory=dict)
    forge: Callable[[bytes], bytes] | None = None
    signer: type[XMLSigner] = XMLSigner
    secret: bytes | None = None
    c14n: CanonicalizationMethod = CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0
    given: int = 0

    @property
    def metadata(self) -> str:
        return metadata_of(certificate_of(self.key))

    def answer(self, address: str, **says: Any) -> str:
        """For whoever came by ``address``, as a browser posts it."""
        said = self._said(asked_in(address)) | self.says | says
        root = etree.fromstring(self._response(said))
        if self.signs in ("assertion", "both"):
            [assertion] = root.findall(f"{{{ASSERTION}}}Assertion")
            root.replace(assertion, self.sign(assertion))
        if self.signs in ("response", "both"):
            root = self.sign(root)
        data = etree.tostring(root)
        return base64.b64encode(self.forge(data) if self.forge else data).decode()

    def sign(self, element: Any) -> Any:
        signer = self.signer(
            signature_algorithm=self.method,
            digest_algorithm=self.digest,
            c14n_algorithm=self.c14n,
        )
        if self.secret:
            return signer.sign(element, key=self.secret, reference_uri=element.get("ID"), id_attribute="ID")
        certificate = certificate_of(self.key).public_bytes(Encoding.PEM).decode()
        return signer.sign(
            element, key=pem_of(self.key).encode(), cert=certificate, reference_uri=element.get("ID"), id_attribute="ID"
        )

    def _said(self, asked: dict[str, str]) -> dict[str, Any]:
        self.given += 1
        now = clock.now()
        return {
            "id": f"_a{self.given}", "response_id": f"_r{self.given}", "version": "2.0", "issuer": ISSUER,
            "response_issuer": ISSUER, "request": asked["ID"], "response_request": asked["ID"],
            "destination": asked["AssertionConsumerServiceURL"], "recipient": asked["AssertionConsumerServiceURL"],
            "audience": asked["Issuer"], "name": "id-of-alice", "format": PERSISTENT,
            "attributes": {EMAIL: ["alice@acme.example"]}, "issued": instant(now),
            "response_issued": instant(now), "authenticated": instant(now),
            "from": instant(now - 1), "until": instant(now + 300), "confirmed_until": instant(now + 300),
            "confirmed_from": None, "session_until": None, "method": "urn:oasis:names:tc:SAML:2.0:cm:bearer",
            "status": "urn:oasis:names:tc:SAML:2.0:status:Success", "conditions": "", "statement": True,
            "raw_name": None, "subject": "", "restricted": True,
        }  # fmt: skip

    def _response(self, said: dict[str, Any]) -> str:
        place = PLACE if self.signs in ("response", "both") else ""
        return (
            f'<samlp:Response xmlns:samlp="{PROTOCOL}" xmlns:saml="{ASSERTION}" '
            + attributes({
                "ID": said["response_id"], "Version": said["version"], "IssueInstant": said["response_issued"],
                "Destination": said["destination"], "InResponseTo": said["response_request"],
            })
            + ">" + element("saml:Issuer", said["response_issuer"]) + place
            + f'<samlp:Status><samlp:StatusCode Value="{said["status"]}"/></samlp:Status>'
            + (self._assertion(said) if said["name"] is not None else "") + "</samlp:Response>"
        )  # fmt: skip

    def _assertion(self, said: dict[str, Any]) -> str:
        place = PLACE if self.signs in ("assertion", "both") else ""
        name = element("saml:NameID", said["name"], {"Format": said["format"]})
        confirmed = attributes({
            "Recipient": said["recipient"], "InResponseTo": said["request"],
            "NotOnOrAfter": said["confirmed_until"], "NotBefore": said["confirmed_from"],
        })  # fmt: skip
        restriction = (
            f"<saml:AudienceRestriction>{element('saml:Audience', said['audience'])}</saml:AudienceRestriction>"
        )
        statement = attributes({"AuthnInstant": said["authenticated"], "SessionNotOnOrAfter": said["session_until"]})
        values = "".join(
            f'<saml:Attribute Name="{name}">{listed(all_)}</saml:Attribute>'
            for name, all_ in (said["attributes"] or {}).items()
        )
        return (
            f'<saml:Assertion xmlns:saml="{ASSERTION}" '
            + attributes({"ID": said["id"], "Version": "2.0", "IssueInstant": said["issued"]}) + ">"
            + element("saml:Issuer", said["issuer"]) + place
            + f"<saml:Subject>{said['raw_name'] or name}"
            + f'<saml:SubjectConfirmation Method="{said["method"]}"><saml:SubjectConfirmationData {confirmed}/>'
            + f"</saml:SubjectConfirmation>{said['subject']}</saml:Subject>"
            + f"<saml:Conditions {attributes({'NotBefore': said['from'], 'NotOnOrAfter': said['until']})}>"
            + (restriction if said["restricted"] else "") + f"{said['conditions']}</saml:Conditions>"
            + (f"<saml:AuthnStatement {statement}/>" if said["statement"] else "")
            + (f"<saml:AttributeStatement>{values}</saml:AttributeStatement>" if values else "")
            + "</saml:Assertion>"
        )  # fmt: skip


def attributes(said: dict[str, str | None]) -> str:
    return " ".join(f'{name}="{escape(value)}"' for name, value in said.items() if value is not None)


def element(name: str, text: str | None, said: dict[str, str | None] | None = None) -> str:
    return "" if text is None else f"<{name} {attributes(said or {})}>{escape(text)}</{name}>"


def listed(values: list[str]) -> str:
    return "".join(element("saml:AttributeValue", each) for each in values)


def metadata_of(
    *certificates: x509.Certificate, issuer: str = ISSUER, sign_in: str = SIGN_IN, more: str = "", inside: str = ""
) -> str:
    """``more``: attributes of the role."""
    keys = "".join(
        f'<md:KeyDescriptor use="signing"><ds:KeyInfo xmlns:ds="{DS}"><ds:X509Data><ds:X509Certificate>'
        f"{base64.b64encode(each.public_bytes(Encoding.DER)).decode()}"
        "</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>"
        for each in certificates
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" '
        f'entityID="{issuer}"><md:IDPSSODescriptor protocolSupportEnumeration="{PROTOCOL}" {more}>{keys}{inside}'
        '<md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" Location="https://x.example"/>'
        '<md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" '
        f'Location="{escape(sign_in)}"/></md:IDPSSODescriptor></md:EntityDescriptor>'
    )
