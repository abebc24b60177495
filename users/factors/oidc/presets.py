"""What is known of providers, so that administrators need not look it up. Everything can be said otherwise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preset:
    """``issuer``: with ``{domain}`` where the administrator's own part stands; ``domain_is``: what that is, for people;
    empty: there is none."""

    label: str
    issuer: str
    domain_is: str = ""
    scopes: str = "openid email profile"
    groups_claim: str = "groups"


PRESETS = {
    "google": Preset("Google", "https://accounts.google.com", groups_claim=""),
    "entra": Preset("Microsoft Entra ID", "https://login.microsoftonline.com/{domain}/v2.0", "the tenant's id"),
    "okta": Preset("Okta", "https://{domain}", "acme.okta.com", "openid email profile groups"),
    "onelogin": Preset("OneLogin", "https://{domain}/oidc/2", "acme.onelogin.com", "openid email profile groups"),
    # Auth0 has no claim of groups but what an Action adds, under a name of one's own.
    "auth0": Preset("Auth0", "https://{domain}/", "acme.eu.auth0.com", groups_claim=""),
    "jumpcloud": Preset("JumpCloud", "https://oauth.id.jumpcloud.com/", groups_claim="memberOf"),
    "keycloak": Preset("Keycloak", "https://{domain}", "id.acme.example/realms/acme"),
    "slack": Preset("Slack", "https://slack.com", groups_claim=""),
}
