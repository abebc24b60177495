"""Single sign-on by OpenID Connect: authorization code with PKCE, state and nonce; the account must be the user's."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import ClassVar
from urllib.parse import urlencode

from core import clock
from core.crypto import keyed_hash
from core.http import NoAnswer
from users.factors.panels import FactorPanel, NotDone
from users.factors.providers import ProviderConfig, ProviderForm
from users.models import SignIn
from users.signin.account_panel import account_panel
from users.signin.accounts import recognise
from users.signin.claims import groups_in, require
from users.signin.factor import SignInFactor
from users.signin.models import SignInGrant
from users.signin.outcomes import NotSignedIn, SignedIn
from users.signin.sign_ins import our_address

from . import directories, discovery, tokens
from .enrolment import KIND, account_of
from .form import OidcProviderForm
from .id_token import verify
from .presets import lasting


class OpenIdConnect(SignInFactor):
    kind: ClassVar[str] = KIND
    label: ClassVar[str] = "single sign-on (OpenID Connect)"
    panel: ClassVar[FactorPanel | None] = account_panel(KIND)
    provider_form: ClassVar[type[ProviderForm] | None] = OidcProviderForm
    can_be_tried: ClassVar[bool] = True
    asks_again: ClassVar[bool] = True

    def get_ready(self, config: ProviderConfig) -> None:
        discovery.metadata(config)

    def address_of(self, config: ProviderConfig, state: str) -> str:
        challenge = base64.urlsafe_b64encode(hashlib.sha256(_verifier(state).encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": config.settings["client_id"],
            "redirect_uri": _redirect(config),
            "scope": config.settings["scopes"],
            "state": state,
            "nonce": _nonce(state),
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        if self.every(config) and not directories.of(config):
            asked |= lasting(str(config.settings["preset"]), str(config.settings["scopes"]))
        there = discovery.metadata(config).authorization
        return f"{there}{'&' if '?' in there else '?'}{urlencode(asked)}"

    def finish(self, config: ProviderConfig, sign_in: SignIn, sent: Mapping[str, str], state: str) -> SignedIn:
        metadata = discovery.metadata(config)
        # RFC 9207: the answer of another provider is not mixed up with this one's.
        if sent.get("iss", None if metadata.names_itself else metadata.issuer) != metadata.issuer:
            raise NotSignedIn("bad_answer", "iss of the redirect")
        if "error" in sent or not sent.get("code"):
            raise NotSignedIn("declined")
        said = tokens.for_code(config, metadata, sent["code"], _redirect(config), _verifier(state))
        claims = verify(config, said.get("id_token"), clock.now(), _nonce(state))
        require(str(config.settings["required_claims"]), claims)
        recognise(sign_in.user, KIND, account_of(config, claims))
        account, directory = directories.account(config, claims), directories.of(config)
        if directory is None:
            groups = groups_in(claims, str(config.settings["groups_claim"]))
            return SignedIn(groups, tokens.refresh_token(said), account)
        if not account:
            raise NotSignedIn("bad_answer", directory.claim)
        return SignedIn(directory.look(config, account), account=account)

    def every(self, config: ProviderConfig) -> timedelta:
        return timedelta(minutes=int(config.settings["ask_again"] or 0))

    def can_ask(self, config: ProviderConfig, grant: SignInGrant) -> bool:
        return bool(grant.account if directories.of(config) else grant.refresh_token)

    def renew(self, config: ProviderConfig, grant: SignInGrant, store: Callable[[str], None]) -> SignedIn | None:
        if directory := directories.of(config):
            return SignedIn(directory.look(config, grant.account))
        token = grant.refresh_token.reveal()
        said = tokens.for_refresh(config, discovery.metadata(config), token)
        # Before anything else: the old one is good no more.
        if (new := tokens.refresh_token(said)) and new != token:
            store(new)
        if "id_token" not in said:
            return None
        try:
            claims = verify(config, said["id_token"], clock.now())
        except NotSignedIn as error:
            # What nobody has signed says nothing of the user, good or bad.
            raise NoAnswer(f"{config.name} answers with a token that cannot be trusted: {error}.") from None
        require(str(config.settings["required_claims"]), claims)
        recognise(grant.user, KIND, account_of(config, claims), first=False)
        return SignedIn(groups_in(claims, str(config.settings["groups_claim"])))

    def too_long_silent(self, config: ProviderConfig, grant: SignInGrant, now: float) -> bool:
        patience = timedelta(minutes=int(config.settings["patience"] or 0))
        return bool(patience) and clock.moment(now) - grant.agreed > self.every(config) + patience

    def try_out(self, provider: ProviderConfig) -> str:
        discovery.forget(provider)
        try:
            metadata, keys = discovery.metadata(provider), discovery.keys(provider, "")
            if directory := directories.of(provider):
                directory.greet(provider)
        except NoAnswer as error:
            raise NotDone(str(error)) from None
        count = len(keys.keys)
        return (
            f"{metadata.issuer} answers, and signs with {count} {'key' if count == 1 else 'keys'}. "
            f"{'Its directory answers, too. ' if directory else ''}"
            f"Its redirect address for us must be {_redirect(provider)}."
        )


def _redirect(config: ProviderConfig) -> str:
    return f"{our_address(config)}/sso/back"


def _nonce(state: str) -> str:
    """Of this sign-in, without being stored: whoever reads the state cannot make it."""
    return keyed_hash("oidc nonce", state)


def _verifier(state: str) -> str:
    return keyed_hash("oidc verifier", state)
