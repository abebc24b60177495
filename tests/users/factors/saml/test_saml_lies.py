"""What a provider, or somebody in its place, can say that must let nobody in."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree
from signxml.algorithms import CanonicalizationMethod, DigestAlgorithm, SignatureMethod

from core import clock
from tests.conftest import Clock
from tests.factories import Company
from tests.protocol_client import NOW
from users.factors.saml.request import authn_request, redirect
from users.factors.saml.response import Expected, judge
from users.models import Enrolment
from users.signin.outcomes import NotSignedIn

from .attempts import SamlVisit, a_provider, ask
from .liar import (
    ASSERTION,
    DS,
    EMAIL,
    ISSUER,
    SIGN_IN,
    AnySigner,
    SamlLiar,
    a_key,
    certificate_of,
    instant,
    metadata_of,
)
from .wrapping import WAYS

# What a provider says for a request of ours whose id is "_1".
EXPECTED = Expected(
    issuer=ISSUER,
    audience="https://vpn.acme.example/sso/saml",
    answers="https://vpn.acme.example/sso/saml/acs",
    request="_1",
    now=NOW,
    certificates=(certificate_of(a_key()),),
)
REQUEST = authn_request(
    id="_1", to=SIGN_IN, entity_id=EXPECTED.audience, answers=EXPECTED.answers, now=clock.moment(NOW), fresh=False
)
ADDRESS = redirect(SIGN_IN, REQUEST, "state", None)


def judged(answer: str) -> str:
    """The code of the refusal, or "alright"."""
    try:
        found = judge(answer, EXPECTED)
    except NotSignedIn as error:
        return error.code
    assert found.name == "id-of-alice"
    return "alright"


LATE, EARLY = instant(NOW - 121), instant(NOW + 121)


@pytest.mark.parametrize("signs", ["assertion", "response"])
@pytest.mark.parametrize(
    "says",
    [
        {"issuer": "https://evil.example"}, {"issuer": None}, {"response_issuer": "https://evil.example"},
        {"audience": "https://another.example"}, {"audience": None}, {"audience": "https://vpn.acme.example/sso/saml/"},
        {"restricted": False}, {"recipient": "https://vpn.acme.example.evil.example/sso/saml/acs"}, {"recipient": None},
        {"recipient": "https://vpn.acme.example/sso/saml"}, {"recipient": "https://vpn.acme.example/sso/saml/acs/"},
        {"destination": "https://evil.example/sso/saml/acs"}, {"destination": ""},
        {"destination": "https://vpn.acme.example/sso/saml/acs?x"},
        {"request": "_of-another"}, {"request": None}, {"response_request": "_of-another"}, {"response_request": None},
        {"until": LATE}, {"until": "soon"}, {"until": "2099-13-45T00:00:00Z"}, {"until": ""}, {"until": "2099-01-01"},
        {"until": "2099-01-01T00:00:00+14:00"}, {"from": EARLY}, {"from": "long ago"},
        {"confirmed_until": LATE}, {"confirmed_until": None}, {"confirmed_until": "x"}, {"confirmed_from": EARLY},
        {"issued": EARLY}, {"issued": None}, {"response_issued": EARLY},
        {"response_issued": None}, {"authenticated": EARLY}, {"authenticated": None},
        {"session_until": LATE}, {"session_until": "x"}, {"statement": False},
        {"method": "urn:oasis:names:tc:SAML:2.0:cm:holder-of-key"}, {"method": ""},
        {"method": "urn:oasis:names:tc:SAML:2.0:cm:sender-vouches"},
        {"version": "1.1"}, {"version": None},
        {"conditions": '<saml:Condition xmlns:x="urn:x"/>'}, {"conditions": "<saml:Unknown/>"},
        {"conditions": "<saml:AudienceRestriction><saml:Audience>x</saml:Audience></saml:AudienceRestriction>"},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_signed_and_wrong(fixed_clock: Clock, says: dict[str, Any], signs: str) -> None:
    liar = SamlLiar(signs=signs)
    assert judged(liar.answer(ADDRESS)) == "alright"
    assert judged(liar.answer(ADDRESS, **says)) == "bad_answer"


@pytest.mark.parametrize(("signs", "says"), [("assertion", {"response_id": None}), ("response", {"id": None})])
def test_what_has_no_id(fixed_clock: Clock, signs: str, says: dict[str, Any]) -> None:
    assert judged(SamlLiar(signs=signs).answer(ADDRESS, **says)) == "bad_answer"


def test_a_clock_that_is_a_little_off_is_right(visit: SamlVisit, liar: SamlLiar) -> None:
    fast = {"from": instant(NOW + 110), "issued": instant(NOW + 110), "authenticated": instant(NOW + 110)}
    assert visit.outcome(liar, **fast) == "allowed"
    slow = {"until": instant(NOW - 110), "confirmed_until": instant(NOW - 110)}
    assert SamlVisit(visit.identity).outcome(liar, **slow) == "allowed"


def test_a_response_that_is_signed_must_say_for_where(visit: SamlVisit, liar: SamlLiar) -> None:
    assert visit.outcome(liar, destination=None) == "allowed"
    liar.signs = "response"
    assert SamlVisit(visit.identity).outcome(liar, destination=None) == "saml_bad_answer"


NAME = '<saml:NameID Format="urn:oasis:names:tc:SAML:2.0:nameid-format:persistent">{}</saml:NameID>'


@pytest.mark.parametrize(
    ("says", "code"),
    [
        ({"format": "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"}, "saml_no_id"),
        ({"name": ""}, "saml_no_id"), ({"name": "x" * 256}, "saml_no_id"),
        ({"raw_name": NAME.format("id-of-alice") * 2}, "saml_no_id"),
        ({"raw_name": NAME.format("id-of-<saml:x/>alice")}, "saml_no_id"),
        ({"raw_name": "<saml:EncryptedID/>"}, "saml_no_id"),
        ({"status": "urn:oasis:names:tc:SAML:2.0:status:Responder"}, "saml_declined"),
        ({"status": "", "name": None}, "saml_declined"),
        ({"name": None}, "saml_bad_answer"),
    ],
)  # fmt: skip
def test_answers_that_say_nothing_of_anybody(visit: SamlVisit, liar: SamlLiar, says: dict[str, Any], code: str) -> None:
    liar.signs = "response"
    assert visit.outcome(liar, **says) == code


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("same_id", [False, True])
def test_a_signature_that_is_wrapped(visit: SamlVisit, liar: SamlLiar, way: str, same_id: bool) -> None:
    liar.signs, wrap = WAYS[way]
    liar.forge = lambda data: etree.tostring(wrap(etree.fromstring(data), same_id))
    assert visit.outcome(liar) == "saml_bad_answer"
    assert not Enrolment.objects.exists()


def swapped(old: str, new: str) -> Callable[[bytes], bytes]:
    def forge(data: bytes) -> bytes:
        assert old.encode() in data
        return data.replace(old.encode(), new.encode())

    return forge


def unsigned(data: bytes) -> bytes:
    root = etree.fromstring(data)
    for each in list(root.iter(f"{{{DS}}}Signature")):
        each.getparent().remove(each)
    return bytes(etree.tostring(root))


def another_assertion(data: bytes) -> bytes:
    root = etree.fromstring(data)
    root.append(etree.fromstring(etree.tostring(root.find(f"{{{ASSERTION}}}Assertion")).replace(b"_a1", b"_a9")))
    return bytes(etree.tostring(root))


ENTITY = b'<!DOCTYPE r [<!ENTITY a "id-of-alice"><!ENTITY x SYSTEM "file:///etc/passwd">]>'
FORGERIES: dict[str, Callable[[bytes], bytes]] = {
    "no signature": unsigned,
    "another name": swapped("id-of-alice", "id-of-bob"),
    "another address": swapped("alice@acme.example", "bob@acme.example"),
    "a comment in the name": swapped("id-of-alice", "id-of-<!-- -->alice"),
    "a comment in the address": swapped("alice@acme.example", "alice@acme.example<!---->.evil.example"),
    "a comment anywhere": swapped("</samlp:Response>", "<!-- x --></samlp:Response>"),
    "CDATA in the name": swapped("id-of-alice", "<![CDATA[id-of-alice]]>"),
    "a processing instruction": swapped("id-of-alice", "id-of-<?x?>alice"),
    "a document type": lambda data: ENTITY + data,
    "an entity": lambda data: ENTITY + data.replace(b"id-of-alice", b"&a;"),
    "a file": lambda data: ENTITY + data.replace(b"id-of-alice", b"&x;"),
    "entities of entities": lambda data: (
        b'<!DOCTYPE r [<!ENTITY a "aaaaaaaaaa">'
        + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9)) + b"]>"
        + data.replace(b"id-of-alice", b"&j;")
    ),
    "in UTF-16": lambda data: data.decode().encode("utf-16"),
    "no algorithm": swapped("http://www.w3.org/2001/04/xmldsig-more#rsa-sha256", "none"),
    "HMAC's name": swapped(
        "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256", "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256"
    ),
    "an assertion too many": another_assertion,
    "an empty signature": swapped("<ds:SignatureValue>", "<ds:SignatureValue></ds:SignatureValue><ds:SignatureValue>"),
    "all of the document signed": swapped('URI="#_a1"', 'URI=""'),
    "another part signed": swapped('URI="#_a1"', 'URI="#_r1"'),
    "signed elsewhere": swapped('URI="#_a1"', 'URI="https://evil.example/"'),
    "a transform": swapped(
        '<ds:Transforms>',
        '<ds:Transforms><ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116"/>',
    ),
    "another way to write it": swapped("http://www.w3.org/2001/10/xml-exc-c14n#", "http://www.w3.org/2006/12/xml-c14n11"),
    "the id twice": swapped('<samlp:StatusCode ', '<samlp:StatusCode Id="_a1" '),
    "cut off": lambda data: data[:-20],
    "an evil root": lambda data: b"<x>" + data + b"</x>",
    "no XML": lambda data: b"\x00\xff",
    "deep": lambda data: b"<a>" * 9000,
}  # fmt: skip


@pytest.mark.parametrize("how", FORGERIES)
def test_answers_that_are_forged(visit: SamlVisit, liar: SamlLiar, how: str) -> None:
    liar.forge = FORGERIES[how]
    assert visit.outcome(liar) == "saml_bad_answer"
    assert not Enrolment.objects.exists()


def test_base64_that_is_none(visit: SamlVisit, liar: SamlLiar) -> None:
    visit.connect()
    state = visit.press().partition("RelayState=")[2]
    assert "You cannot connect" in visit.bring("%%%", state)


def of_a_stranger(liar: SamlLiar) -> None:
    liar.key = a_key("stranger")


def by_sha1(liar: SamlLiar) -> None:
    liar.signer, liar.method = AnySigner, SignatureMethod.RSA_SHA1


def by_sha1_of_what_is_signed(liar: SamlLiar) -> None:
    liar.signer, liar.digest = AnySigner, DigestAlgorithm.SHA1


def by_a_secret_that_everybody_knows(liar: SamlLiar) -> None:
    public = liar.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    liar.secret, liar.method = public, SignatureMethod.HMAC_SHA256


@pytest.mark.parametrize("how", [of_a_stranger, by_sha1, by_sha1_of_what_is_signed, by_a_secret_that_everybody_knows])
@pytest.mark.parametrize("signs", ["assertion", "response", "both"])
def test_signatures_that_are_worth_nothing(
    visit: SamlVisit, liar: SamlLiar, how: Callable[[SamlLiar], None], signs: str
) -> None:
    # A stranger's certificate stands in the signature (KeyInfo), and is not looked at.
    liar.signs = signs
    how(liar)
    assert visit.outcome(liar) == "saml_bad_answer"


@pytest.mark.parametrize("signs", ["assertion", "response"])
def test_what_is_signed_right_in_a_way_that_saml_does_not_know(fixed_clock: Clock, signs: str) -> None:
    """Each way to write down what is signed is one more to have it read differently."""
    for c14n in set(CanonicalizationMethod) - {CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0}:
        assert judged(SamlLiar(signs=signs, c14n=c14n).answer(ADDRESS)) == "bad_answer", c14n


def test_of_two_signatures_both_must_be_right(visit: SamlVisit, liar: SamlLiar) -> None:
    """The assertion of a stranger, in a response that the provider has signed, and the other way round."""
    stranger = SamlLiar(key=a_key("stranger"), signs="both")
    right = liar.sign
    for mine in ("Response", "Assertion"):

        def sign(element: Any, mine: str = mine) -> Any:
            return (right if element.tag.endswith(mine) else SamlLiar.sign.__get__(stranger))(element)

        stranger.sign = sign  # type: ignore[method-assign]
        assert SamlVisit(visit.identity).outcome(stranger) == "saml_bad_answer"


def test_an_assertion_that_is_encrypted_is_refused_in_words(visit: SamlVisit, liar: SamlLiar) -> None:
    liar.forge = swapped("<samlp:Status>", "<saml:EncryptedAssertion/><samlp:Status>")
    assert visit.outcome(liar) == "saml_encrypted"


def test_the_answer_to_another_providers_request_is_not_mixed_up(
    company: Company, visit: SamlVisit, liar: SamlLiar
) -> None:
    """Both are trusted; each for its own requests alone."""
    other = SamlLiar(
        key=a_key("other"), says={"issuer": "https://other.example", "response_issuer": "https://other.example"}
    )
    ask(company, a_provider(metadata_of(certificate_of(other.key), issuer="https://other.example"), "Other"))
    assert visit.outcome(other) == "allowed"
    assert SamlVisit(visit.identity).outcome(liar) == "saml_bad_answer"


def test_accounts_of_two_providers_are_two(company: Company, visit: SamlVisit, liar: SamlLiar) -> None:
    assert visit.outcome(liar) == "allowed"
    other = SamlLiar(
        key=a_key("other"), says={"issuer": "https://other.example", "response_issuer": "https://other.example"}
    )
    ask(company, a_provider(metadata_of(certificate_of(other.key), issuer="https://other.example"), "Other"))
    bobs = {"attributes": {EMAIL: ["bob@acme.example"]}}
    assert SamlVisit(visit.identity).outcome(other, **bobs) == "saml_other_account"


@cache
def right_answer() -> str:
    return SamlLiar().answer(ADDRESS)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_change_of_what_is_signed_is_believed(fixed_clock: Clock, data: st.DataObject) -> None:
    """Whatever a piece of it is replaced by: refused in words, or what is read of it is what was signed."""
    right = base64.b64decode(right_answer())
    start = data.draw(st.integers(0, len(right) - 1))
    end = start + data.draw(st.integers(0, 60))
    pieces = st.one_of(st.binary(max_size=60), st.sampled_from([right[n : n + 300] for n in range(0, len(right), 100)]))
    changed = right[:start] + data.draw(pieces) + right[end:]
    try:
        found = judge(base64.b64encode(changed).decode(), EXPECTED)
    except NotSignedIn:
        return
    assert found == judge(right_answer(), EXPECTED)
