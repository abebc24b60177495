"""What the provider's token endpoint gives: for a code, and again for a refresh token."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus, urlencode

from core.http import Answer, NoAnswer
from users.factors.providers import ProviderConfig
from users.signin.outcomes import NotSignedIn

from . import discovery
from .discovery import Metadata

_FORM = "application/x-www-form-urlencoded"
# Of a token that we store.
LONGEST = 16 * 1024


def for_code(config: ProviderConfig, metadata: Metadata, code: str, redirect: str, verifier: str) -> Mapping[str, Any]:
    """Raise ``NotSignedIn`` where the provider does not take the code, else ``NoAnswer``."""
    fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect, "code_verifier": verifier}
    answer = _post(config, metadata, fields)
    if answer.status == 400:
        raise NotSignedIn("bad_answer", "the code is not taken")
    return _said(answer)


def for_refresh(config: ProviderConfig, metadata: Metadata, token: str) -> Mapping[str, Any]:
    """Raise ``NotSignedIn`` where the provider no longer stands by the sign-in, and ``NoAnswer`` for whatever else it
    says: that our client secret is wrong, for example, is nothing about the user."""
    answer = _post(config, metadata, {"grant_type": "refresh_token", "refresh_token": token})
    if answer.status in (400, 401, 403):
        said = answer.json()
        if isinstance(said, dict) and said.get("error") == "invalid_grant":
            raise NotSignedIn("revoked")
    return _said(answer)


def for_ourselves(config: ProviderConfig, metadata: Metadata, scope: str) -> str:
    """An access token of the application itself, for nobody's account. Raise ``NoAnswer``."""
    said = _said(_post(config, metadata, {"grant_type": "client_credentials", "scope": scope}))
    token = said.get("access_token")
    if not isinstance(token, str) or not token or not token.isascii():
        raise NoAnswer(f"{config.name} gives no token that could be used.")
    return token


def refresh_token(said: Mapping[str, Any]) -> str:
    """Empty where there is none that we could use."""
    token = said.get("refresh_token")
    return token if isinstance(token, str) and token.isascii() and len(token) <= LONGEST else ""


def _post(config: ProviderConfig, metadata: Metadata, fields: dict[str, str]) -> Answer:
    client, secret = str(config.settings["client_id"]), config.secrets["client_secret"]
    headers = {"Content-Type": _FORM, "Accept": "application/json"}
    if metadata.posts_secret:
        fields = {**fields, "client_id": client, "client_secret": secret}
    else:
        pair = f"{quote_plus(client)}:{quote_plus(secret)}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    return discovery.ask(config, "POST", metadata.token, headers=headers, body=urlencode(fields).encode())


def _said(answer: Answer) -> Mapping[str, Any]:
    said = answer.json() if answer.status == 200 else None
    if not isinstance(said, dict):
        raise NoAnswer(f"{answer.host} gives no token (status {answer.status}).")
    return said
