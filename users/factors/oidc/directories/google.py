"""Google's Directory API, as a service account that stands for an administrator there (domain-wide delegation)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from core import clock
from core.http import NoAnswer, host_of
from users.factors.oidc import discovery
from users.factors.providers import ProviderConfig
from users.signin.outcomes import NotSignedIn

from .asking import Asking, root_of, text

USUAL = "https://admin.googleapis.com"
_SCOPE = "https://www.googleapis.com/auth/admin.directory"
SCOPES = f"{_SCOPE}.user.readonly {_SCOPE}.group.readonly"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
PAGE = 200
# Seconds for which it is not asked anew in which groups a group is: many accounts are in the same ones.
GROUPS_KEPT = 60


def look(config: ProviderConfig, account: str) -> list[str]:
    """Groups by their addresses, those in which a group of theirs is as well."""
    asking = _asking(config)
    root = f"{asking.root}/admin/directory/v1"
    said = asking.get(f"{root}/users/{quote(account, safe='')}?projection=basic", _is_gone)
    suspended, archived = said.get("suspended"), said.get("archived", False)
    if text(said, "id") != account or not (isinstance(suspended, bool) and isinstance(archived, bool)):
        raise NoAnswer("The directory answers with what is not asked for.")
    if suspended or archived:
        raise NotSignedIn("revoked", "suspended or archived in the directory")
    return _groups(asking, root, account)


def greet(config: ProviderConfig) -> None:
    asking = _asking(config)
    for what in ("users", "groups"):
        asking.get(f"{asking.root}/admin/directory/v1/{what}?customer=my_customer&maxResults=1")


def service_account(key: str) -> Mapping[str, str] | None:
    """What the file of a service account's key says; None where it is no such file. The key itself is not looked at:
    that takes long, and a provider's settings are read with each connect."""
    try:
        said = json.loads(key)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or said.get("type") != "service_account":
        return None
    found = {name: said.get(name) for name in ("client_email", "private_key", "token_uri")}
    if not all(isinstance(each, str) and each for each in found.values()) or not host_of(str(found["token_uri"])):
        return None
    return {name: str(each) for name, each in found.items()}


def _groups(asking: Asking, root: str, account: str) -> list[str]:
    """The Directory API names those that it is a member of itself; so these are asked about in turn."""
    found: dict[str, None] = {}
    waiting = [account]
    while waiting:
        who = waiting.pop()
        for address in _direct(asking, root, who) if who == account else _kept(asking, root, who):
            if address not in found:
                found[address] = None
                waiting.append(address)
    return list(found)


def _kept(asking: Asking, root: str, group: str) -> list[str]:
    name = ("groups of a group", asking.config.public_id, root, group)
    found: list[str] = discovery.kept(name, GROUPS_KEPT, lambda: _direct(asking, root, group))
    return found


def _direct(asking: Asking, root: str, who: str) -> list[str]:
    asked = urlencode({"userKey": who, "maxResults": PAGE})

    def after(said: Mapping[str, Any]) -> str:
        token = said.get("nextPageToken")
        return f"{root}/groups?{asked}&{urlencode({'pageToken': token})}" if token else ""

    return [text(each, "email").lower() for each in asking.pages(f"{root}/groups?{asked}", "groups", after)]


def _asking(config: ProviderConfig) -> Asking:
    return Asking(config, root_of(config, USUAL), lambda: _token(config))


def _token(config: ProviderConfig) -> str:
    """Raise ``NoAnswer``."""
    account = service_account(config.secrets["directory_key"])
    if account is None:
        raise NoAnswer(f"{config.name} has no key of a service account.")
    now = int(clock.now())
    claims = {
        "iss": account["client_email"],
        "sub": config.settings["directory_admin"],
        "scope": SCOPES,
        "aud": account["token_uri"],
        "iat": now,
        "exp": now + 600,
    }
    try:
        signed = jwt.encode({"alg": "RS256", "typ": "JWT"}, claims, RSAKey.import_key(account["private_key"]))
    except (JoseError, ValueError, TypeError):
        raise NoAnswer(f"The private key of {config.name}'s service account cannot be read.") from None
    body = urlencode({"grant_type": _GRANT, "assertion": signed}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    answer = discovery.ask(config, "POST", account["token_uri"], headers=headers, body=body)
    said = answer.json() if answer.status == 200 else None
    if not isinstance(said, dict):
        raise NoAnswer(f"{answer.host} gives the service account no token (status {answer.status}).")
    return text(said, "access_token")


def _is_gone(said: Mapping[str, Any]) -> bool:
    error = said.get("error")
    reasons = error.get("errors") if isinstance(error, dict) else None
    return isinstance(reasons, list) and any(
        isinstance(each, dict) and each.get("reason") == "notFound" for each in reasons
    )
