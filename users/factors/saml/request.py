"""The request with which a browser goes to the provider (AuthnRequest, redirect binding)."""

from __future__ import annotations

import base64
import zlib
from datetime import datetime
from urllib.parse import urlencode

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from lxml import etree

from .xml import ASSERTION, POST_BINDING, PROTOCOL, tag

RSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"


def authn_request(*, id: str, to: str, entity_id: str, answers: str, now: datetime, fresh: bool) -> bytes:
    """``answers``: where it is to have the browser post its answer; ``fresh``: whether people must sign in anew, also
    where the provider knows them."""
    root = etree.Element(tag(PROTOCOL, "AuthnRequest"), nsmap={"samlp": PROTOCOL, "saml": ASSERTION})
    said = {
        "ID": id,
        "Version": "2.0",
        "IssueInstant": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "Destination": to,
        "ProtocolBinding": POST_BINDING,
        "AssertionConsumerServiceURL": answers,
        **({"ForceAuthn": "true"} if fresh else {}),
    }
    for name, value in said.items():
        root.set(name, value)
    etree.SubElement(root, tag(ASSERTION, "Issuer")).text = entity_id
    etree.SubElement(root, tag(PROTOCOL, "NameIDPolicy")).set("AllowCreate", "true")
    return bytes(etree.tostring(root))


def redirect(to: str, request: bytes, state: str, key: rsa.RSAPrivateKey | None) -> str:
    """The address that brings ``request`` to the provider; signed where there is a key (bindings 3.4.4.1)."""
    packed = zlib.compressobj(wbits=-15)
    said = {
        "SAMLRequest": base64.b64encode(packed.compress(request) + packed.flush()).decode(),
        "RelayState": state,
    }
    query = urlencode(said if key is None else {**said, "SigAlg": RSA_SHA256})
    if key:
        signature = key.sign(query.encode(), padding.PKCS1v15(), hashes.SHA256())
        query = f"{query}&{urlencode({'Signature': base64.b64encode(signature).decode()})}"
    return f"{to}{'&' if '?' in to else '?'}{query}"
