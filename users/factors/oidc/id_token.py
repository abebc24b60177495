"""Verifying an ID token (OpenID Connect Core 3.1.3.7)."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import JoseError

from users.factors.providers import ProviderConfig
from users.signin.outcomes import NotSignedIn

from .discovery import keys

# Signatures by a public key alone. "none" and the ones with a shared secret are never taken.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
LONGEST = 64 * 1024
# Seconds that a provider's clock may be off, and within which a token must have been made.
SKEW = 60
OLDEST = 600
# What Google's tokens say as well.
OTHER_NAMES = {"https://accounts.google.com": ("accounts.google.com",)}


def verify(config: ProviderConfig, token: object, now: float, nonce: str | None = None) -> Mapping[str, Any]:
    """The claims of a token that was made for us, now, and for the sign-in of ``nonce`` (None: whichever). Raise
    ``NotSignedIn`` and ``NoAnswer``."""
    if not isinstance(token, str) or not token.isascii() or len(token) > LONGEST:
        raise NotSignedIn("bad_answer", "no ID token")
    try:
        key_id = jws.extract_compact(token.encode()).headers().get("kid", "")
        if not isinstance(key_id, str):
            raise NotSignedIn("bad_answer", "kid")
        claims = jwt.decode(token, keys(config, key_id), algorithms=ALGORITHMS).claims
    except (JoseError, ValueError, TypeError, KeyError, RecursionError):
        raise NotSignedIn("bad_answer", "signature") from None
    for what, holds in _checks(config, claims, nonce, now).items():
        if not holds:
            raise NotSignedIn("bad_answer", what)
    return claims


def _checks(config: ProviderConfig, claims: Mapping[str, Any], nonce: str | None, now: float) -> dict[str, bool]:
    issuer, client = str(config.settings["issuer"]), str(config.settings["client_id"])
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience if isinstance(audience, list) else []
    expires, issued, subject, said = (claims.get(name) for name in ("exp", "iat", "sub", "nonce"))
    return {
        "iss": claims.get("iss") in (issuer, *OTHER_NAMES.get(issuer, ())),
        "aud": client in audiences,
        # Of several audiences, it must say for whom it was made.
        "azp": claims.get("azp", client if len(audiences) == 1 else None) == client,
        "exp": _is_number(expires) and float(expires or 0) > now - SKEW,
        "iat": _is_number(issued) and now - OLDEST < float(issued or 0) < now + SKEW,
        "sub": isinstance(subject, str) and 0 < len(subject) <= 255,
        "nonce": nonce is None or (isinstance(said, str) and hmac.compare_digest(said.encode(), nonce.encode())),
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 10**12
