"""A stand-in for OneLogin's service, which cannot be reached from tests: written from its documentation, apart from our
client. It checks credential, token, paths and bodies, and speaks the documented answers and errors of tokens, users and
authentication factors (version 2)."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.counterpart import Asked, Said

CLIENT, SECRET = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
DEVICES = [
    {"device_id": 1, "type_display_name": "SMS", "auth_factor_name": "SMS", "default": True},
    {"device_id": 2, "type_display_name": "OneLogin Protect", "auth_factor_name": "OneLogin", "default": False},
    {"device_id": "3", "type_display_name": "OneLogin Protect", "auth_factor_name": "OneLogin", "default": True},
    {"device_id": 4, "auth_factor_name": "Google Authenticator", "default": False},
]


def said(body: Any, status: int = 200) -> Said:
    return Said(status, json.dumps(body).encode())


def error(status: int, name: str) -> Said:
    return said({"statusCode": status, "name": name, "message": "…"}, status)


def a_user(name: str, **changes: Any) -> dict[str, Any]:
    return {"id": 77, "email": name, "username": name, "status": 1, "state": 1} | changes


SUCCESS = said({"status": {"type": "success", "code": 200, "message": "Success", "error": False}})


@dataclass
class OneLoginService:
    """``results``: what each look at a push says; ``code``: what a passcode says; ``begun``: what a trigger says.
    Tokens are ``token-N``, and good while they are in ``good``."""

    results: list[Any] = field(default_factory=lambda: [{"status": "accepted"}])
    code: Said = field(default_factory=lambda: SUCCESS)
    begun: Said | None = None
    users: Said | None = None
    devices: Any = field(default_factory=lambda: DEVICES)
    token: Said | None = None
    good: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    sent: list[Any] = field(default_factory=list)
    given: int = 0

    def __call__(self, asked: Asked) -> Said:
        self.asked.append(f"{asked.method} {asked.path}")
        self.sent.append(json.loads(asked.body) if asked.body else None)
        if asked.path == "/auth/oauth2/v2/token":
            return self._token(asked)
        if asked.headers.get("authorization", "").removeprefix("Bearer ") not in self.good:
            return error(401, "UnauthorizedError")
        parts = urlsplit(asked.path)
        sent = self.sent[-1]
        match f"{asked.method} {parts.path}".split("/api/2"):
            case ["GET ", "/users"]:
                return self._users(parse_qs(parts.query))
            case ["GET ", "/mfa/users/77/devices"]:
                return said(self.devices)
            case ["POST ", "/mfa/users/77/verifications"]:
                known = [each for each in DEVICES if each["device_id"] == sent["device_id"]]
                right = known and set(sent) <= {"device_id", "expires_in"} and sent.get("expires_in", 120) <= 900
                begun = {"id": "ver-1", "device_id": sent["device_id"], "expires_at": "…"}
                return (self.begun or said(begun, 201)) if right else error(422, "UnprocessableEntityError")
            case ["PUT ", "/mfa/users/77/verifications/ver-1"]:
                return self.code if set(sent) == {"otp", "device_id"} else error(400, "BadRequestError")
            case ["GET ", "/mfa/users/77/verifications/ver-1"]:
                result = self.results.pop(0) if self.results else {"status": "pending"}
                return result if isinstance(result, Said) else said(result)
        return error(404, "NotFoundError")

    def _token(self, asked: Asked) -> Said:
        pair = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if asked.method != "POST" or asked.headers.get("authorization") != f"Basic {pair}":
            return said({"status": {"error": True, "code": 401, "type": "Unauthorized", "message": "…"}}, 401)
        if self.sent[-1] != {"grant_type": "client_credentials"}:
            return said({"status": {"error": True, "code": 400, "type": "bad request", "message": "…"}}, 400)
        self.given += 1
        self.good.add(f"token-{self.given}")
        fresh = {"access_token": f"token-{self.given}", "expires_in": 36000, "token_type": "bearer", "account_id": 5}
        return self.token or said(fresh)

    def _users(self, query: dict[str, list[str]]) -> Said:
        if query == {"limit": ["1"]}:
            return said([a_user("somebody")])
        name = (query.get("email") or query["username"])[0]
        return self.users or said([a_user(name)])
