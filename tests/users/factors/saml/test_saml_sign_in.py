"""Connecting with a sign-in by SAML: what the client gets, what the provider is told, and whose account is taken."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import Encoding
from django.conf import LazySettings
from django.test import Client
from lxml import etree
from signxml.algorithms import SignatureMethod

from core.redis_store import redis_client
from servers.models import ServerFactor
from tests.concurrency import together
from tests.conftest import Clock
from tests.factories import Company
from users.models import Enrolment, Provider, SignIn, VpnUser
from wgpeers.models import Decision

from .attempts import ACS, OURS, SamlVisit, a_provider, ask
from .liar import EMAIL, ISSUER, SIGN_IN, SamlLiar, a_key, asked_in, certificate_of, instant, metadata_of, pem_of


def why() -> str:
    return Decision.objects.latest("pk").code


def test_who_signs_in_is_connected(visit: SamlVisit, liar: SamlLiar) -> None:
    asked = visit.connect()
    assert set(asked) == {"sso_url", "sso_token", "signature"}
    assert visit.wait() == 428
    assert "You are signed in" in visit.sign_in(liar)
    answer = visit.wait()
    assert (answer["allow"], why()) == (True, "allowed")
    assert Enrolment.objects.get(kind="saml").user.name == "alice"


@pytest.mark.parametrize("signs", ["assertion", "response", "both"])
@pytest.mark.parametrize(
    "method", [SignatureMethod.RSA_SHA256, SignatureMethod.RSA_SHA512, SignatureMethod.SHA256_RSA_MGF1]
)
def test_whatever_part_is_signed(visit: SamlVisit, liar: SamlLiar, signs: str, method: SignatureMethod) -> None:
    liar.signs, liar.method = signs, method
    assert visit.outcome(liar) == "allowed"


def test_a_provider_that_signs_with_an_elliptic_curve(company: Company, visit: SamlVisit) -> None:
    liar = SamlLiar(key=ec.generate_private_key(ec.SECP256R1()), method=SignatureMethod.ECDSA_SHA256)
    ask(company, a_provider(liar.metadata, "Curve"))
    assert visit.outcome(liar) == "allowed"


def test_any_certificate_of_the_metadata_signs_also_one_that_has_ended(company: Company, visit: SamlVisit) -> None:
    # Providers change their keys so: the next one is announced, and none is believed for its dates.
    liar = SamlLiar()
    two = metadata_of(certificate_of(a_key("next")), certificate_of(liar.key, days=1))
    ask(company, a_provider(two, "Two"))
    assert visit.outcome(liar) == "allowed"


def test_the_request_says_what_the_standard_asks_for(visit: SamlVisit) -> None:
    visit.connect()
    address = visit.press()
    asked = asked_in(address)
    assert address.startswith(f"{SIGN_IN}&SAMLRequest=")
    assert len(asked["RelayState"]) <= 80
    expected = {"Version": "2.0", "Destination": SIGN_IN, "AssertionConsumerServiceURL": OURS + ACS}
    assert expected.items() <= asked.items()
    assert asked["Issuer"] == f"{OURS}/sso/saml"
    assert not asked["ID"][0].isdigit()
    assert asked["RelayState"] not in asked["ID"]
    assert "Signature" not in asked
    assert "ForceAuthn" not in asked


def test_a_request_is_signed_where_there_is_a_key(company: Company, visit: SamlVisit, liar: SamlLiar) -> None:
    key = a_key("ours")
    pem = certificate_of(key).public_bytes(Encoding.PEM).decode()
    wants = metadata_of(certificate_of(liar.key), more='WantAuthnRequestsSigned="true"')
    ask(company, a_provider(wants, "Signed", pem_of(key), our_certificate=pem))
    visit.connect()
    address = visit.press()
    said = dict(parse_qsl(urlsplit(address).query))
    signed = urlencode({name: said[name] for name in ("SAMLRequest", "RelayState", "SigAlg")})
    key.public_key().verify(base64.b64decode(said["Signature"]), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    assert signed in address
    assert "You are signed in" in visit.bring(liar.answer(address), said["RelayState"])


@pytest.mark.parametrize("with_key", [False, True])
def test_what_the_provider_is_told_of_us(visit: SamlVisit, liar: SamlLiar, with_key: bool) -> None:
    key = a_key("ours")
    pem = certificate_of(key).public_bytes(Encoding.PEM).decode() if with_key else ""
    provider = a_provider(liar.metadata, "Told", pem_of(key), our_certificate=pem, entity_id="urn:acme:vpn")
    response = Client().get(f"/sso/saml/{provider.public_id}")
    assert response["Content-Type"] == "application/samlmetadata+xml"
    root = etree.fromstring(response.content)
    md = {"md": "urn:oasis:names:tc:SAML:2.0:metadata", "ds": "http://www.w3.org/2000/09/xmldsig#"}
    assert root.get("entityID") == "urn:acme:vpn"
    assert root.xpath("string(//md:AssertionConsumerService/@Location)", namespaces=md) == OURS + ACS
    assert root.xpath("string(//md:SPSSODescriptor/@WantAssertionsSigned)", namespaces=md) == "true"
    assert bool(root.xpath("//ds:X509Certificate", namespaces=md)) is with_key
    assert "PRIVATE" not in response.content.decode()


@pytest.mark.parametrize("public_id", ["unknown", "x" * 24])
def test_metadata_of_nobody(db: None, public_id: str) -> None:
    assert Client().get(f"/sso/saml/{public_id}").status_code == 404


def test_only_the_browser_that_pressed_the_button_brings_an_answer_back(visit: SamlVisit, liar: SamlLiar) -> None:
    visit.connect()
    address = visit.press()
    back = visit.post(liar.answer(address), asked_in(address)["RelayState"])
    assert back.startswith("/sso/back?state=")
    assert Client().get(back).status_code == 400
    assert visit.wait() == 428
    assert "You are signed in" in visit.come_back(back)


def test_nothing_is_kept_of_what_nobody_waits_for(visit: SamlVisit, liar: SamlLiar, fixed_clock: Clock) -> None:
    visit.connect()
    address = visit.press()
    answer, state = liar.answer(address), asked_in(address)["RelayState"]
    for sent in [
        {"SAMLResponse": answer, "RelayState": "x" * 32}, {"SAMLResponse": answer}, {"RelayState": state},
        {"SAMLResponse": "a" * 65537, "RelayState": state}, {},
    ]:  # fmt: skip
        assert Client().post(ACS, sent).status_code == 400
    assert Client().get(ACS).status_code == 405
    fixed_clock.advance(301)
    assert not visit.post(answer, state)
    assert not list(redis_client().scan_iter("posted:*"))


def test_posts_from_one_address_are_limited(visit: SamlVisit, settings: LazySettings) -> None:
    settings.SIGN_IN_VIEWS_PER_MINUTE = 3
    assert [Client().post(ACS).status_code for _ in range(4)] == [400, 400, 400, 429]


def test_pages_say_so_while_redis_is_away(visit: SamlVisit, liar: SamlLiar, settings: LazySettings) -> None:
    visit.connect()
    address = visit.press()
    answer, state = liar.answer(address), asked_in(address)["RelayState"]
    settings.REDIS_URL = "unix:///nowhere.sock"
    assert Client().post(ACS, {"SAMLResponse": answer, "RelayState": state}).status_code == 503
    assert not SignIn.objects.exclude(outcome="").exists()


def test_coming_back_with_nothing_can_be_tried_again(visit: SamlVisit, liar: SamlLiar) -> None:
    visit.connect()
    state = asked_in(visit.press())["RelayState"]
    assert "Not right now" in visit.come_back(f"/sso/back?state={state}")
    assert visit.wait() == 428
    assert "You are signed in" in visit.sign_in(liar)


def test_an_answer_is_good_once(visit: SamlVisit, liar: SamlLiar) -> None:
    visit.connect()
    address = visit.press()
    answer, state = liar.answer(address), asked_in(address)["RelayState"]
    back = visit.post(answer, state)
    assert "You are signed in" in visit.come_back(back)
    assert "This sign-in is over" in visit.come_back(back)
    assert not visit.post(answer, state)
    other = SamlVisit(visit.identity, visit.browser)
    other.connect()
    again = asked_in(other.press())["RelayState"]
    assert "You cannot connect" in other.bring(answer, again)
    assert (other.wait()["allow"], why()) == (False, "saml_bad_answer")


def test_an_assertion_that_was_seen_is_not_believed_for_another_request(visit: SamlVisit, liar: SamlLiar) -> None:
    assert visit.outcome(liar, id="_the-same") == "allowed"
    assert SamlVisit(visit.identity).outcome(liar, id="_the-same") == "saml_bad_answer"
    assert SamlVisit(visit.identity).outcome(liar, id="_another") == "allowed"


def test_of_answers_that_come_at_once_one_is_taken(visit: SamlVisit, liar: SamlLiar) -> None:
    visit.connect()
    address = visit.press()
    back = visit.post(liar.answer(address), asked_in(address)["RelayState"])
    cookies = {name: each.value for name, each in visit.browser.cookies.items()}

    def come_back() -> int:
        browser = Client()
        browser.cookies.load(cookies)
        return browser.get(back).status_code

    assert sorted(map(str, together([come_back] * 4))) == ["302", "400", "400", "400"]


def test_somebody_elses_account_is_refused(visit: SamlVisit, liar: SamlLiar) -> None:
    bobs = {"name": "id-of-bob", "attributes": {EMAIL: ["bob@acme.example"]}}
    visit.connect()
    assert "You cannot connect" in visit.sign_in(liar, **bobs)
    assert (visit.wait()["allow"], why()) == (False, "saml_other_account")
    assert not Enrolment.objects.filter(kind="saml").exists()


def test_after_the_first_sign_in_the_providers_own_id_counts(visit: SamlVisit, liar: SamlLiar) -> None:
    assert visit.outcome(liar) == "allowed"
    again = SamlVisit(visit.identity)
    assert again.outcome(liar, attributes={EMAIL: ["alice.smith@acme.example"]}) == "allowed"
    # The address was given to somebody else.
    assert SamlVisit(visit.identity).outcome(liar, name="id-of-carol") == "saml_other_account"


def test_an_attribute_that_never_changes_counts_in_the_place_of_the_name(
    company: Company, liar: SamlLiar, visit: SamlVisit
) -> None:
    ask(company, a_provider(liar.metadata, "Oid", id_attribute="oid"))

    def signed(name: str, **attributes: list[str]) -> str:
        return SamlVisit(visit.identity).outcome(
            liar, name=name, attributes={EMAIL: ["alice@acme.example"], **attributes}
        )

    assert signed("alice@acme.example") == "saml_no_id"
    assert signed("alice@acme.example", oid=["7", "8"]) == "saml_no_id"
    assert signed("alice@acme.example", oid=["7"]) == "allowed"
    assert signed("alice.smith@acme.example", oid=["7"]) == "allowed"
    assert signed("alice@acme.example", oid=["8"]) == "saml_other_account"


def test_the_address_can_be_the_name(company: Company, liar: SamlLiar, visit: SamlVisit) -> None:
    ask(company, a_provider(liar.metadata, "Plain", address_attribute=""))
    assert visit.outcome(liar) == "saml_other_account"
    assert SamlVisit(visit.identity).outcome(liar, name="alice@acme.example") == "allowed"


@pytest.mark.parametrize("addresses", [[], ["alice@acme.example", "bob@acme.example"], ["bob@acme.example"]])
def test_an_address_that_is_not_theirs_alone_matches_nobody(
    visit: SamlVisit, liar: SamlLiar, addresses: list[str]
) -> None:
    assert visit.outcome(liar, attributes={EMAIL: addresses}) == "saml_other_account"


@pytest.mark.parametrize(
    ("groups", "code"),
    [
        ({"groups": ["staff", "vpn"]}, "allowed"),
        ({"groups": ["staff"]}, "saml_group"),
        ({"groups": ["vpn;admins"]}, "saml_group"),
        ({"groups": []}, "saml_group"),
        ({}, "saml_groups_unknown"),
    ],
)
def test_groups_that_a_server_names(visit: SamlVisit, liar: SamlLiar, groups: dict[str, list[str]], code: str) -> None:
    ServerFactor.objects.update(settings={"groups": "vpn\nadmins"})
    assert visit.outcome(liar, attributes={EMAIL: ["alice@acme.example"], **groups}) == code


def test_groups_that_come_in_one_text(company: Company, visit: SamlVisit, liar: SamlLiar) -> None:
    ask(company, a_provider(liar.metadata, "OneLogin", groups_attribute="groups", split_groups=True), groups="vpn")
    said = {EMAIL: ["alice@acme.example"], "groups": ["staff; vpn"]}
    assert visit.outcome(liar, attributes=said) == "allowed"


def test_attributes_that_a_provider_must_send(company: Company, visit: SamlVisit, liar: SamlLiar) -> None:
    ask(company, a_provider(liar.metadata, "Tight", required_attributes="tenant=acme"))
    mine = {EMAIL: ["alice@acme.example"]}
    assert visit.outcome(liar, attributes=mine) == "saml_claim"
    assert SamlVisit(visit.identity).outcome(liar, attributes={**mine, "tenant": ["acme"]}) == "allowed"


def test_signing_in_anew_is_asked_for_and_looked_at(
    company: Company, visit: SamlVisit, liar: SamlLiar, fixed_clock: Clock
) -> None:
    ask(company, a_provider(liar.metadata, "Fresh", fresh=True))
    visit.connect()
    assert asked_in(visit.press())["ForceAuthn"] == "true"
    long_ago = instant(fixed_clock.advance(0) - 3600)
    assert SamlVisit(visit.identity).outcome(liar, authenticated=long_ago) == "saml_not_fresh"
    assert SamlVisit(visit.identity).outcome(liar) == "allowed"


def test_a_user_without_an_address_is_told(visit: SamlVisit) -> None:
    VpnUser.objects.update(email="")
    assert "no e-mail address" in visit.connect()["reason"]
    assert why() == "saml_not_enrolled"


def test_a_provider_whose_metadata_cannot_be_used_any_more_lets_nobody_in(visit: SamlVisit, liar: SamlLiar) -> None:
    Provider.objects.update(settings={"metadata": "<x/>", "our_address": OURS})
    assert visit.connect()["allow"] is False
    assert why() == "saml_not_configured"


def test_what_is_kept_of_an_account_is_encrypted(visit: SamlVisit, liar: SamlLiar) -> None:
    assert visit.outcome(liar) == "allowed"
    row: Any = Enrolment.objects.get(kind="saml")
    assert row.secret.reveal() == f'{{"{ISSUER}": "id-of-alice"}}'
    assert "id-of-alice" not in f"{row!r} {vars(row)}"
