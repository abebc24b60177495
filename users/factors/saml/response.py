"""Judging what a provider has a browser bring (Response, POST binding; profiles 4.1.4.3).

Only what is signed is believed: an assertion is read from what ``signatures.verified`` gives back.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cryptography import x509

from users.signin.outcomes import NotSignedIn

from .assertion import SKEW, Assertion, attributes_of, is_before, moment_of, name_of
from .signatures import NotSigned, signatures_in, verified
from .xml import ASSERTION, PROTOCOL, SIGNATURE, Element, Unusable, children, ids_of, parse, tag, text_of

SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
# Conditions that we keep: nobody is told twice, and nothing is made of an assertion.
KNOWN = {tag(ASSERTION, name) for name in ("AudienceRestriction", "OneTimeUse", "ProxyRestriction")}


@dataclass(frozen=True, slots=True)
class Expected:
    """What an answer to one request of ours says. ``audience``: our entity id; ``answers``: where it is posted to;
    ``request``: the id of the request; ``now``: Unix seconds."""

    issuer: str
    audience: str
    answers: str
    request: str
    now: float
    certificates: Sequence[x509.Certificate] = field(repr=False)


def judge(posted: str, expected: Expected) -> Assertion:
    """What is said in ``posted``, as it came (base64), of whoever has signed in. Raise ``NotSignedIn``."""
    try:
        root = parse(base64.b64decode("".join(posted.split()), validate=True))
    except (Unusable, binascii.Error, ValueError):
        raise NotSignedIn("bad_answer", "XML") from None
    _hold(_shape(root))
    if root.find(f".//{tag(ASSERTION, 'EncryptedAssertion')}") is not None:
        raise NotSignedIn("encrypted")
    codes = root.findall(f"{tag(PROTOCOL, 'Status')}/{tag(PROTOCOL, 'StatusCode')}")
    if [each.get("Value") for each in codes] != [SUCCESS]:
        raise NotSignedIn("declined")
    try:
        assertion = _signed_assertion(root, expected.certificates)
    except NotSigned as error:
        raise NotSignedIn("bad_answer", str(error)) from None
    _hold(_response_checks(root, expected))
    _hold(_assertion_checks(assertion, expected))
    name, name_format = name_of(assertion)
    return Assertion(
        id=str(assertion.get("ID")),
        name=name,
        name_format=name_format,
        attributes=attributes_of(assertion),
        authenticated=max(
            moment_of(each, "AuthnInstant") or 0 for each in children(assertion, ASSERTION, "AuthnStatement")
        ),
        ends=_ends(assertion, expected),
    )


def _hold(checks: Mapping[str, bool]) -> None:
    for what, holds in checks.items():
        if not holds:
            raise NotSignedIn("bad_answer", what)


def _shape(root: Element) -> dict[str, bool]:
    """So that there is one answer to what is signed, and to who it is about."""
    ids = list(ids_of(root))
    inside = children(root, ASSERTION, "Assertion")
    allowed = [found for each in (root, *inside) for found in signatures_in(each)]
    return {
        "Response": root.tag == tag(PROTOCOL, "Response") and root.get("Version") == "2.0" and bool(root.get("ID")),
        "ids": len(ids) == len(set(ids)),
        "assertions": len(list(root.iter(tag(ASSERTION, "Assertion")))) == len(inside) <= 1,
        "signatures": list(root.iter(tag(SIGNATURE, "Signature"))) == allowed,
    }


def _signed_assertion(root: Element, certificates: Sequence[x509.Certificate]) -> Element:
    """Each signature that there is must be right. Raise ``NotSigned``."""
    inside = children(root, ASSERTION, "Assertion")
    if len(inside) != 1:
        raise NotSigned("assertions")
    believed = None
    if signatures_in(root):
        [believed] = children(verified(root, certificates), ASSERTION, "Assertion")
    if signatures_in(inside[0]):
        believed = verified(inside[0], certificates)
    if believed is None:
        raise NotSigned("no signature")
    return believed


def _response_checks(root: Element, expected: Expected) -> dict[str, bool]:
    """Of what need not be signed: the assertion says the most of it again."""
    issuers = [text_of(each) for each in children(root, ASSERTION, "Issuer")]
    # Whoever signs the whole must say for where.
    places = (expected.answers,) if signatures_in(root) else (expected.answers, None)
    return {
        "issuer of the response": issuers in ([], [expected.issuer]),
        "destination": root.get("Destination") in places,
        "request of the response": root.get("InResponseTo") == expected.request,
        "issue of the response": is_before(root, "IssueInstant", expected.now + SKEW),
    }


def _assertion_checks(assertion: Element, expected: Expected) -> dict[str, bool]:
    now = expected.now
    conditions = children(assertion, ASSERTION, "Conditions")
    statements = children(assertion, ASSERTION, "AuthnStatement")
    return {
        "version": assertion.get("Version") == "2.0" and bool(assertion.get("ID")),
        "issuer": [text_of(each) for each in children(assertion, ASSERTION, "Issuer")] == [expected.issuer],
        "issued": is_before(assertion, "IssueInstant", now + SKEW),
        "conditions": len(conditions) == 1 and {each.tag for each in conditions[0]} <= KNOWN,
        "audience": bool(conditions) and _is_for_us(conditions[0], expected.audience),
        "time": bool(conditions) and _is_now(conditions[0], now),
        "confirmation": any(_confirms(each, expected) for each in _confirmations(assertion)),
        "statement": bool(statements) and all(_still_holds(each, now) for each in statements),
    }


def _is_for_us(conditions: Element, audience: str) -> bool:
    restrictions = children(conditions, ASSERTION, "AudienceRestriction")
    return bool(restrictions) and all(
        audience in [text_of(each) for each in children(one, ASSERTION, "Audience")] for one in restrictions
    )


def _is_now(element: Element, now: float) -> bool:
    """Both ends are as good as none where they are not said; what cannot be read is not now."""
    before, until = moment_of(element, "NotBefore"), moment_of(element, "NotOnOrAfter")
    starts = element.get("NotBefore") is None or (before is not None and before <= now + SKEW)
    return starts and (element.get("NotOnOrAfter") is None or (until is not None and until > now - SKEW))


def _confirmations(assertion: Element) -> list[Element]:
    subjects = children(assertion, ASSERTION, "Subject")
    return children(subjects[0], ASSERTION, "SubjectConfirmation") if len(subjects) == 1 else []


def _confirms(confirmation: Element, expected: Expected) -> bool:
    data = children(confirmation, ASSERTION, "SubjectConfirmationData")
    return (
        confirmation.get("Method") == BEARER
        and len(data) == 1
        and data[0].get("Recipient") == expected.answers
        and data[0].get("InResponseTo") == expected.request
        and data[0].get("NotOnOrAfter") is not None
        and _is_now(data[0], expected.now)
    )


def _still_holds(statement: Element, now: float) -> bool:
    until = moment_of(statement, "SessionNotOnOrAfter")
    open_ended = statement.get("SessionNotOnOrAfter") is None
    return is_before(statement, "AuthnInstant", now + SKEW) and (open_ended or (until or 0) > now - SKEW)


def _ends(assertion: Element, expected: Expected) -> float:
    """When nobody would believe it any more."""
    data = [each.find(tag(ASSERTION, "SubjectConfirmationData")) for each in _confirmations(assertion)]
    return SKEW + max(moment_of(each, "NotOnOrAfter") or expected.now for each in data if each is not None)
