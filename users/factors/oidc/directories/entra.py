"""Microsoft Entra's directory, by Microsoft Graph. We ask as the application that users sign in to, with its own
permissions (client credentials)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from core.http import NoAnswer
from users.factors.oidc import discovery, tokens
from users.factors.providers import ProviderConfig
from users.signin.outcomes import NotSignedIn

from .asking import Asking, root_of, text

USUAL = "https://graph.microsoft.com"
PAGE = 500
GROUP = "#microsoft.graph.group"


def look(config: ProviderConfig, account: str) -> list[str]:
    """Groups by their object ids, those in which a group of theirs is as well."""
    asking = _asking(config)
    user = f"{asking.root}/v1.0/users/{quote(account, safe='')}"
    said = asking.get(f"{user}?$select=id,accountEnabled", _is_gone)
    if text(said, "id") != account or not isinstance(said.get("accountEnabled"), bool):
        raise NoAnswer("The directory answers with what is not asked for.")
    if not said["accountEnabled"]:
        raise NotSignedIn("revoked", "disabled in the directory")
    found = asking.pages(f"{user}/transitiveMemberOf?$select=id&$top={PAGE}", "value", _after)
    # Roles and administrative units are among them.
    return [text(each, "id") for each in found if text(each, "@odata.type") == GROUP]


def greet(config: ProviderConfig) -> None:
    asking = _asking(config)
    for what in ("users", "groups"):
        asking.get(f"{asking.root}/v1.0/{what}?$select=id&$top=1")


def _asking(config: ProviderConfig) -> Asking:
    root = root_of(config, USUAL)
    metadata = discovery.metadata(config)
    return Asking(config, root, lambda: tokens.for_ourselves(config, metadata, f"{root}/.default"))


def _is_gone(said: Mapping[str, Any]) -> bool:
    error = said.get("error")
    return isinstance(error, dict) and error.get("code") == "Request_ResourceNotFound"


def _after(said: Mapping[str, Any]) -> str:
    return text(said, "@odata.nextLink") if "@odata.nextLink" in said else ""
