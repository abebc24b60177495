"""Which account the claims of a verified token name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from users.factors.providers import ProviderConfig
from users.signin.accounts import Account

KIND = "oidc"


def account_of(config: ProviderConfig, claims: Mapping[str, Any]) -> Account:
    address, verified = claims.get("email"), claims.get("email_verified")
    return Account(
        issuer=str(config.settings["issuer"]),
        subject=str(claims["sub"]),
        address=address if isinstance(address, str) else "",
        # Some write the word. By identity: what is only equal to True (1, say) was said by nobody who meant it.
        verified=verified is True or verified == "true" or bool(config.settings["trust_addresses"]),
    )
