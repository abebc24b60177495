"""Verifying an XML signature, by a certificate that an administrator gave and no other.

What is signed is what ``verified`` gives back, parsed again from the very bytes whose digest was right. Nothing else of
the document is ever read, so that it does not matter what was wrapped around it.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from lxml import etree
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.exceptions import SignXMLException
from signxml.verifier import SignatureConfiguration, XMLVerifier

from .xml import SIGNATURE, Element, children, tag

ENVELOPED = f"{SIGNATURE}enveloped-signature"
EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
# By a public key, and no hash that somebody has found collisions for.
METHODS = frozenset({
    SignatureMethod.RSA_SHA256, SignatureMethod.RSA_SHA384, SignatureMethod.RSA_SHA512,
    SignatureMethod.SHA256_RSA_MGF1, SignatureMethod.SHA384_RSA_MGF1, SignatureMethod.SHA512_RSA_MGF1,
    SignatureMethod.ECDSA_SHA256, SignatureMethod.ECDSA_SHA384, SignatureMethod.ECDSA_SHA512,
})  # fmt: skip
DIGESTS = frozenset({DigestAlgorithm.SHA256, DigestAlgorithm.SHA384, DigestAlgorithm.SHA512})
# What the library, or what it stands on, says of a signature that is wrong or no signature.
_WRONG = (SignXMLException, etree.LxmlError, UnsupportedAlgorithm, ValueError, TypeError, LookupError, AttributeError)


class NotSigned(ValueError):
    """Nobody who is trusted has signed it. The argument says what is wrong."""


def signatures_in(element: Element) -> list[Element]:
    """Its own, not those of what is in it."""
    return children(element, SIGNATURE, "Signature")


def verified(element: Element, certificates: Sequence[x509.Certificate]) -> Element:
    """What one of ``certificates`` has signed of ``element``: all of it but the signature. Raise ``NotSigned``."""
    _check_shape(element)
    for certificate in certificates:
        # It is trusted since it was given, by the key in it; when it ends says nothing of that.
        expected = SignatureConfiguration(
            location="./",
            expect_references=1,
            signature_methods=METHODS,
            digest_algorithms=DIGESTS,
            verification_time=certificate.not_valid_before_utc,
        )
        try:
            found = XMLVerifier().verify(
                element, x509_cert=certificate, expect_config=expected, id_attribute="ID", validate_schema=True
            )
        except _WRONG:
            continue
        signed = getattr(found, "signed_xml", None)
        if signed is not None and signed.tag == element.tag and signed.get("ID") == element.get("ID"):
            return signed
    raise NotSigned("signature")


def _check_shape(element: Element) -> None:
    """One signature of ``element`` as a whole, as SAML has it (core 5.4), so that no other rule of XML signatures is
    ever used."""
    found = signatures_in(element)
    if len(found) != 1 or not element.get("ID"):
        raise NotSigned("no signature")
    parts = [each.tag for each in found[0]]
    if parts not in (_tags("SignedInfo", "SignatureValue"), _tags("SignedInfo", "SignatureValue", "KeyInfo")):
        raise NotSigned("parts of the signature")
    info = found[0][0]
    methods = [each.get("Algorithm") for each in children(info, SIGNATURE, "CanonicalizationMethod")]
    references = children(info, SIGNATURE, "Reference")
    if methods != [EXCLUSIVE] or len(references) != 1:
        raise NotSigned("what is signed")
    transforms = [each.get("Algorithm") for each in references[0].iter(tag(SIGNATURE, "Transform"))]
    if references[0].get("URI") != f"#{element.get('ID')}" or transforms != [ENVELOPED, EXCLUSIVE]:
        raise NotSigned("what is signed")


def _tags(*names: str) -> list[str]:
    return [tag(SIGNATURE, name) for name in names]
