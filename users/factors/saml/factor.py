"""Single sign-on by SAML 2.0: request by redirect, answer by POST; the account must be the user's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from cryptography.hazmat.primitives.asymmetric import rsa

from core import clock
from core.crypto import keyed_hash
from core.http import NoAnswer
from users.factors.panels import FactorPanel
from users.factors.providers import ProviderConfig, ProviderForm
from users.models import SignIn
from users.signin import posted, sign_ins
from users.signin.account_panel import account_panel
from users.signin.accounts import Account, recognise
from users.signin.claims import groups_in, require
from users.signin.factor import SignInFactor
from users.signin.outcomes import NotSignedIn, SignedIn
from users.signin.sign_ins import our_address

from . import metadata
from .assertion import SKEW, Assertion
from .form import SamlProviderForm, signing_pair
from .metadata import IdentityProvider
from .request import authn_request, redirect
from .response import Expected, judge

KIND = "saml"
TRANSIENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"


class Saml(SignInFactor):
    kind: ClassVar[str] = KIND
    label: ClassVar[str] = "single sign-on (SAML)"
    panel: ClassVar[FactorPanel | None] = account_panel(KIND)
    provider_form: ClassVar[type[ProviderForm] | None] = SamlProviderForm
    can_be_tried: ClassVar[bool] = True
    # Only browsers go there: whether it is down we never hear.
    can_be_unavailable: ClassVar[bool] = False
    sentences: ClassVar[Mapping[str, str]] = {
        **SignInFactor.sentences,
        "bad_answer": "The provider's answer could not be trusted: a wrong signature, issuer, audience, recipient, "
        "time or request, or one that was seen before. A new certificate of the provider is in its new metadata.",
        "encrypted": "The provider encrypts its assertions, which is not supported here. Switch that off there.",
        "no_id": "The provider does not say who the account is in a way that lasts: it has no NameID, a transient one, "
        "or not one value of the attribute that the provider's page names.",
        "not_fresh": "The provider's page wants people to sign in anew, and the provider knew them from before.",
        "claim": "The account lacks an attribute that the provider's page asks for.",
    }

    def get_ready(self, config: ProviderConfig) -> None:
        """Nothing has to be asked for."""

    def address_of(self, config: ProviderConfig, state: str) -> str:
        there = idp_of(config)
        request = authn_request(
            id=_request_id(state),
            to=there.sign_in,
            entity_id=entity_id_of(config),
            answers=answers_to(config),
            now=clock.moment(clock.now()),
            fresh=bool(config.settings["fresh"]),
        )
        return redirect(there.sign_in, request, state, _key_of(config))

    def finish(self, config: ProviderConfig, sign_in: SignIn, sent: Mapping[str, str], state: str) -> SignedIn:
        answer = posted.take(state)
        if not answer:
            raise NoAnswer(f"Nothing was posted of {config.name}.")
        there, now = idp_of(config), clock.now()
        expected = Expected(
            there.entity_id, entity_id_of(config), answers_to(config), _request_id(state), now, there.certificates
        )
        found = judge(answer, expected)
        if not posted.is_new(KIND, config.public_id, found.id, seconds=found.ends - now):
            raise NotSignedIn("bad_answer", "seen before")
        if config.settings["fresh"] and found.authenticated < _begun(sign_in) - SKEW:
            raise NotSignedIn("not_fresh")
        require(str(config.settings["required_attributes"]), found.attributes)
        recognise(sign_in.user, KIND, account_of(config, there, found))
        return SignedIn(_groups(config, found))

    def try_out(self, provider: ProviderConfig) -> str:
        there = idp_of(provider)
        ends = max(each.not_valid_after_utc for each in there.certificates)
        return (
            f"{there.entity_id} signs with a certificate that ends on {ends:%Y-%m-%d} at the latest. Nothing was "
            f"asked: only browsers go there, to {there.sign_in}. For the provider, our metadata is at "
            f"{our_address(provider)}/sso/saml/{provider.public_id}; our entity id is {entity_id_of(provider)}, and "
            f"answers are posted to {answers_to(provider)}."
        )


def idp_of(config: ProviderConfig) -> IdentityProvider:
    return metadata.read(str(config.settings["metadata"]))


def entity_id_of(config: ProviderConfig) -> str:
    return str(config.settings["entity_id"]) or f"{our_address(config)}/sso/saml"


def answers_to(config: ProviderConfig) -> str:
    return f"{our_address(config)}/sso/saml/acs"


def account_of(config: ProviderConfig, there: IdentityProvider, found: Assertion) -> Account:
    """Raise ``NotSignedIn``."""
    subject = _one(found, str(config.settings["id_attribute"]))
    if not subject or (not config.settings["id_attribute"] and found.name_format == TRANSIENT):
        raise NotSignedIn("no_id")
    # Who may write addresses there, its administrators decide: there is no word for it in SAML.
    return Account(there.entity_id, subject, _one(found, str(config.settings["address_attribute"])), verified=True)


def _one(found: Assertion, attribute: str) -> str:
    """The value of an attribute that has just one, else empty; of no attribute: the NameID."""
    values = found.attributes.get(attribute, []) if attribute else [found.name]
    return values[0] if len(values) == 1 else ""


def _groups(config: ProviderConfig, found: Assertion) -> Sequence[str] | None:
    groups = groups_in(found.attributes, str(config.settings["groups_attribute"]))
    if groups is None or not config.settings["split_groups"]:
        return groups
    return [part.strip() for each in groups for part in each.split(";") if part.strip()]


def _key_of(config: ProviderConfig) -> rsa.RSAPrivateKey | None:
    certificate = str(config.settings["our_certificate"])
    return signing_pair(certificate, config.secrets["our_key"])[1] if certificate else None


def _begun(sign_in: SignIn) -> float:
    return (sign_in.expires - sign_ins.LIFETIME).timestamp()


def _request_id(state: str) -> str:
    """Of this sign-in, without being stored. An id begins with no digit."""
    return f"_{keyed_hash('saml request', state)}"
