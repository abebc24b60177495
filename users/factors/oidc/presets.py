"""What is known of providers, so that administrators need not look it up. Everything can be said otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Preset:
    """``issuer``: with ``{domain}`` where the administrator's own part stands; ``domain_is``: what that is, for people;
    empty: there is none. ``lasting``: what to ask for beside the scopes to get a refresh token; None: it gives none."""

    label: str
    issuer: str
    domain_is: str = ""
    scopes: str = "openid email profile"
    groups_claim: str = "groups"
    lasting: Mapping[str, str] | None = field(default_factory=lambda: {"scope": "offline_access"})


# It knows no scope for it, and gives one only with its consent page.
GOOGLES = {"access_type": "offline", "prompt": "consent"}
# The standard has a provider ignore the scope without it (OpenID Connect Core 11).
OTHERS = {"scope": "offline_access", "prompt": "consent"}

PRESETS = {
    "google": Preset("Google", "https://accounts.google.com", groups_claim="", lasting=GOOGLES),
    "entra": Preset("Microsoft Entra ID", "https://login.microsoftonline.com/{domain}/v2.0", "the tenant's id"),
    "okta": Preset("Okta", "https://{domain}", "acme.okta.com", "openid email profile groups"),
    "onelogin": Preset(
        "OneLogin", "https://{domain}/oidc/2", "acme.onelogin.com", "openid email profile groups", lasting=None
    ),
    # Auth0 has no claim of groups but what an Action adds, under a name of one's own.
    "auth0": Preset("Auth0", "https://{domain}/", "acme.eu.auth0.com", groups_claim=""),
    "jumpcloud": Preset("JumpCloud", "https://oauth.id.jumpcloud.com/", groups_claim="memberOf"),
    "keycloak": Preset("Keycloak", "https://{domain}", "id.acme.example/realms/acme"),
    "slack": Preset("Slack", "https://slack.com", groups_claim="", lasting=None),
}


def lasting(preset: str, scopes: str) -> dict[str, str]:
    """What to ask for to get a refresh token; the parameter ``scope`` with ``scopes`` in it."""
    more = dict((PRESETS[preset].lasting or {}) if preset else OTHERS)
    if scope := more.pop("scope", ""):
        more["scope"] = " ".join(dict.fromkeys([*scopes.split(), scope]))
    return more
