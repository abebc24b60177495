"""An OpenID provider that says what a test wants it to say, true or not."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from core import clock
from tests.counterpart import Asked, Said, serving

L = TypeVar("L", bound="Liar")
CLIENT, SECRET = "vpn client", "s3cret/+&"


@dataclass
class Liar:
    """``claims`` are put over the right ones (None takes one away); ``forge`` makes the token in the place of the right
    one. ``codes``: what was asked for each code that is good, once. ``lasting``: refresh tokens are given, which are in
    ``good`` while they are, once each where it ``rotates``; ``meanwhile`` comes before the answer to one."""

    url: str = ""
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "k1", "use": "sig"}))
    published: list[RSAKey | ECKey] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    forge: Callable[[dict[str, Any]], str] | None = None
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    down: bool = False
    given: int = 0
    lasting: bool = False
    rotates: bool = True
    good: set[str] = field(default_factory=set)
    meanwhile: Callable[[], object] = lambda: None

    def sign_in(self, address: str, **claims: Any) -> str:
        """What the provider's page sends the browser back to, for whoever came by ``address``."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        self.claims |= claims
        self.given += 1
        code = f"code-{self.given}"
        self.codes[code] = asked
        return f"/sso/back?code={code}&state={asked['state']}"

    def answer(self, asked: Asked) -> Said:
        path = urlsplit(asked.path).path
        self.fetched.append(path)
        if self.down:
            return Said(503)
        if path == "/.well-known/openid-configuration":
            return _json({
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/auth",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
                **self.metadata,
            })  # fmt: skip
        if path == "/keys":
            keys = [self.key] if self.published is None else self.published
            return _json({"keys": [key.as_dict(private=False) for key in keys]})
        return self._token(asked)

    def _token(self, asked: Asked) -> Said:
        sent = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
        if sent["grant_type"] == "refresh_token":
            return self._refresh(sent["refresh_token"], asked)
        basic = base64.b64decode(asked.headers["authorization"].removeprefix("Basic ")).decode()
        begun = self.codes.pop(sent["code"], None)
        verifier = hashlib.sha256(sent["code_verifier"].encode()).digest()
        right = (
            basic == "vpn+client:s3cret%2F%2B%26"
            and begun is not None
            and begun["code_challenge_method"] == "S256"
            and begun["code_challenge"] == base64.urlsafe_b64encode(verifier).rstrip(b"=").decode()
            and begun["redirect_uri"] == sent["redirect_uri"]
        )
        if begun is None or not right:
            return _json({"error": "invalid_grant"}, 400)
        return self._tokens({"nonce": begun["nonce"]})

    def _refresh(self, token: str, asked: Asked) -> Said:
        self.meanwhile()
        basic = base64.b64decode(asked.headers["authorization"].removeprefix("Basic ")).decode()
        if basic != "vpn+client:s3cret%2F%2B%26":
            return _json({"error": "invalid_client"}, 401)
        if token not in self.good:
            return _json({"error": "invalid_grant"}, 400)
        if self.rotates:
            self.good.discard(token)
        return self._tokens({})

    def _tokens(self, more: dict[str, str]) -> Said:
        now = int(clock.now())
        claims = {
            "iss": self.url, "aud": CLIENT, "sub": "sub-alice", "iat": now, "exp": now + 300,
            "email": "alice@acme.example", "email_verified": True,
        } | more | self.claims  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        said = {"access_token": "a", "token_type": "Bearer", "id_token": self._made(claims)}
        if self.lasting:
            self.given += 1
            said["refresh_token"] = f"refresh-{self.given}"
            self.good.add(said["refresh_token"])
        return _json(said)

    def _made(self, claims: dict[str, Any]) -> str:
        if self.forge:
            return self.forge(claims)
        return jwt.encode({"alg": "RS256", "kid": self.key.kid}, claims, self.key)


@contextmanager
def lying(liar: L) -> Iterator[L]:
    with serving(lambda asked: liar.answer(asked)) as counterpart:
        liar.url = counterpart.url
        yield liar


def unsigned(claims: dict[str, Any]) -> str:
    return f"{_b64({'alg': 'none', 'kid': 'k1'})}.{_b64(claims)}."


def _b64(data: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=").decode()


def _json(data: dict[str, Any], status: int = 200) -> Said:
    return Said(status, json.dumps(data).encode(), {"Content-Type": "application/json"})
