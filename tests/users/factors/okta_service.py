"""A stand-in for Okta's service, which cannot be reached from tests: written from its documentation, apart from our
client. It checks token, paths and bodies, and speaks the documented answers and errors of users and factors."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from tests.counterpart import Asked, Said

TOKEN = "00token-of-an-administrator"
FACTORS = [
    {"id": "sms1", "factorType": "sms", "provider": "OKTA", "status": "ACTIVE"},
    {"id": "old1", "factorType": "push", "provider": "OKTA", "status": "PENDING_ACTIVATION"},
    {"id": "push1", "factorType": "push", "provider": "OKTA", "status": "ACTIVE"},
    {"id": "totp1", "factorType": "token:software:totp", "provider": "GOOGLE", "status": "ACTIVE"},
]


def said(body: Any, status: int = 200) -> Said:
    return Said(status, json.dumps(body).encode())


def error(status: int, code: str) -> Said:
    return said({"errorCode": code, "errorSummary": "…", "errorId": "oae", "errorCauses": []}, status)


@dataclass
class OktaService:
    """``results``: what a push says, first of itself (not one with a number) and then at each look; ``code``: what the
    passcode says; ``number``: what is to be chosen."""

    results: list[dict[str, Any]] = field(default_factory=lambda: [{"factorResult": "SUCCESS"}])
    code: Said = field(default_factory=lambda: said({"factorResult": "SUCCESS"}))
    user: Said | None = None
    number: Any = 72
    factors: Any = field(default_factory=lambda: FACTORS)
    links_to: str = ""
    asked: list[str] = field(default_factory=list)

    def __call__(self, asked: Asked) -> Said:
        if asked.headers.get("authorization") != f"SSWS {TOKEN}":
            return error(401, "E0000011")
        self.asked.append(f"{asked.method} {asked.path}")
        self.last = asked
        mine = f"https://{asked.headers['host']}" if self.links_to == "tls" else f"http://{asked.headers['host']}"
        base = self.links_to if self.links_to.startswith("http") else mine
        transaction = f"{base}/api/v1/users/00u1/factors/push1/transactions/v2mst"
        links = {name: {"href": transaction} for name in ("poll", "cancel")}
        match f"{asked.method} {unquote(asked.path)}".split("/api/v1"):
            case ["GET ", "/users?limit=1"]:
                return said([{"id": "00u1"}])
            case ["GET ", "/users/00u1/factors"]:
                return said(self.factors)
            case ["GET ", login] if login.count("/") == 2:
                name = login.removeprefix("/users/")
                found = {"id": "00u1", "status": "ACTIVE", "profile": {"login": name}}
                return self.user or said(found)
            case ["POST ", "/users/00u1/factors/totp1/verify"]:
                return self.code if set(json.loads(asked.body)) == {"passCode"} else error(400, "E0000001")
            case ["POST ", "/users/00u1/factors/push1/verify"] if asked.headers["user-agent"]:
                begun = {"expiresAt": "…", "factorResult": "WAITING", "_links": links}
                if asked.body and json.loads(asked.body) != {"useNumberMatchingChallenge": True}:
                    return error(400, "E0000001")
                if asked.body:
                    begun["_embedded"] = {"challenge": {"correctAnswer": self.number}}
                    return said(begun, 201)
                return said(begun | self._next(), 201)
            case ["GET ", "/users/00u1/factors/push1/transactions/v2mst"]:
                return said({"_links": links} | self._next())
            case ["DELETE ", "/users/00u1/factors/push1/transactions/v2mst"]:
                return Said(204)
        return error(404, "E0000007")

    def _next(self) -> dict[str, Any]:
        return self.results.pop(0) if self.results else {"factorResult": "WAITING"}
