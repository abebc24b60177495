"""Stand-ins for the directories of Google and Microsoft Entra, which cannot be reached from tests: written from their
documentation, apart from our client. Each is an OpenID provider as well, gives tokens for the documented grant alone,
checks them with each question, and speaks the documented answers and errors, page by page."""

from __future__ import annotations

import base64
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from core import clock
from tests.counterpart import Asked, Said

from .liar import SECRET, Liar

ADMIN, ROBOT = "root@acme.example", "asker@acme.iam.gserviceaccount.com"
ROBOTS_KEY = RSAKey.generate_key(2048)
SCOPE = "https://www.googleapis.com/auth/admin.directory"


def said(body: Any, status: int = 200) -> Said:
    return Said(status, json.dumps(body).encode(), {"Content-Type": "application/json"})


@dataclass
class DirectoryLiar(Liar, ABC):
    """``account``: what the directory says of Alice's, over the right things (None takes one away); ``gone``: it has
    no such account. ``says`` answers in its place, by a part of the path. ``tokens``: those that are good."""

    preset: ClassVar[str]
    # The groups that Alice is in, and one in which she is only as a member of another.
    groups: ClassVar[tuple[str, str, str]]
    disabled: ClassVar[tuple[dict[str, Any], ...]]
    account: dict[str, Any] = field(default_factory=dict)
    gone: bool = False
    says: dict[str, Said] = field(default_factory=dict)
    no_token: bool = False
    tokens: set[str] = field(default_factory=set)
    looked: list[str] = field(default_factory=list)
    asked_before: Callable[[], object] = lambda: None

    def answer(self, asked: Asked) -> Said:
        path = unquote(urlsplit(asked.path).path)
        if path in ("/auth", "/token", "/keys", "/.well-known/openid-configuration"):
            return super().answer(asked)
        self.looked.append(unquote(asked.path))
        self.asked_before()
        if self.down:
            return Said(503)
        if (
            path != "/robots-token"
            and asked.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens
        ):
            return said({"error": {"code": "InvalidAuthenticationToken", "message": "…"}}, 401)
        if found := next((each for part, each in self.says.items() if part in path), None):
            return found
        return self.directory(
            path, {name: each[0] for name, each in parse_qs(urlsplit(asked.path).query).items()}, asked
        )

    @abstractmethod
    def directory(self, path: str, query: dict[str, str], asked: Asked) -> Said:
        """What the directory says of ``path``."""

    def settings(self) -> dict[str, Any]:
        return {"preset": self.preset, "directory": True, "directory_address": self.url}

    def secrets(self) -> dict[str, str]:
        return {"client_secret": SECRET}

    def given_token(self) -> Said:
        if self.no_token:
            return said({"error": "unauthorized_client", "error_description": "…"}, 401)
        self.tokens.add(f"directory-{len(self.tokens)}")
        return said({"access_token": f"directory-{len(self.tokens) - 1}", "token_type": "Bearer", "expires_in": 3599})

    def stated(self, right: dict[str, Any]) -> Said:
        return said({name: value for name, value in (right | self.account).items() if value is not None})


@dataclass
class Google(DirectoryLiar):
    preset: ClassVar[str] = "google"
    groups: ClassVar[tuple[str, str, str]] = ("vpn@acme.example", "staff@acme.example", "everybody@acme.example")
    disabled: ClassVar[tuple[dict[str, Any], ...]] = ({"suspended": True}, {"archived": True})
    # The groups of a group, of which two are in each other.
    above: dict[str, list[str]] = field(
        default_factory=lambda: {
            "staff@acme.example": ["everybody@acme.example"],
            "everybody@acme.example": ["staff@acme.example"],
        }
    )

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"directory_admin": ADMIN}

    def secrets(self) -> dict[str, str]:
        key = {
            "type": "service_account",
            "client_email": ROBOT,
            "private_key": ROBOTS_KEY.as_pem(private=True).decode(),
            "token_uri": f"{self.url}/robots-token",
        }
        return super().secrets() | {"directory_key": json.dumps(key)}

    def directory(self, path: str, query: dict[str, str], asked: Asked) -> Said:
        root, _, what = path.partition("/directory/v1")
        if path == "/robots-token":
            return self._robots_token(parse_qs(asked.body.decode()))
        if root != "/admin" or asked.method != "GET":
            return Said(404, b"<html>")
        if what == "/users/sub-alice":
            if self.gone:
                errors = [{"message": "Resource Not Found: userKey", "domain": "global", "reason": "notFound"}]
                return said({"error": {"code": 404, "message": "Resource Not Found: userKey", "errors": errors}}, 404)
            return self.stated(
                {"id": "sub-alice", "primaryEmail": "a@acme.example", "suspended": False, "archived": False}
            )
        if what == "/groups" and "userKey" in query:
            mine = [*self.groups[:2]] if query["userKey"] == "sub-alice" else self.above.get(query["userKey"], [])
            return self._page(mine, query)
        if what in ("/users", "/groups") and query == {"customer": "my_customer", "maxResults": "1"}:
            return said({"kind": "…"})
        errors = [{"message": "Not Authorized to access this resource/api", "domain": "global", "reason": "forbidden"}]
        return said({"error": {"code": 403, "message": "…", "errors": errors}}, 403)

    def _page(self, mine: list[str], query: dict[str, str]) -> Said:
        """One group on each."""
        number = int(query.get("pageToken", "0"))
        shown = {"groups": [{"email": each.title()} for each in mine[number : number + 1]]} if mine else {}
        return said(shown | ({"nextPageToken": str(number + 1)} if number + 1 < len(mine) else {}))

    def _robots_token(self, sent: dict[str, list[str]]) -> Said:
        try:
            claims = jwt.decode(sent["assertion"][0], ROBOTS_KEY, algorithms=["RS256"]).claims
        except JoseError:
            return said({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, 400)
        now = clock.now()
        right = (
            sent["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
            and (claims["iss"], claims["sub"], claims["aud"]) == (ROBOT, ADMIN, f"{self.url}/robots-token")
            and set(claims["scope"].split()) == {f"{SCOPE}.user.readonly", f"{SCOPE}.group.readonly"}
            and now - 60 < claims["iat"] <= now < claims["exp"] <= claims["iat"] + 3600
        )
        return self.given_token() if right else said({"error": "invalid_grant"}, 400)


@dataclass
class Entra(DirectoryLiar):
    preset: ClassVar[str] = "entra"
    groups: ClassVar[tuple[str, str, str]] = (
        "11111111-0000-0000-0000-000000000001",
        "11111111-0000-0000-0000-000000000002",
        "11111111-0000-0000-0000-000000000003",
    )
    disabled: ClassVar[tuple[dict[str, Any], ...]] = ({"accountEnabled": False},)
    next_link: str = ""

    def __post_init__(self) -> None:
        self.claims |= {"oid": "oid-alice", "tid": "tid-acme"}

    def _token(self, asked: Asked) -> Said:
        sent = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
        if sent["grant_type"] != "client_credentials":
            return super()._token(asked)
        basic = base64.b64decode(asked.headers["authorization"].removeprefix("Basic ")).decode()
        if basic != "vpn+client:s3cret%2F%2B%26" or sent["scope"] != f"{self.url}/.default":
            return said({"error": "invalid_client", "error_codes": [7000215]}, 401)
        return self.given_token()

    def directory(self, path: str, query: dict[str, str], asked: Asked) -> Said:
        if not path.startswith("/v1.0/") or asked.method != "GET":
            return Said(404, b"<html>")
        if path in ("/v1.0/users", "/v1.0/groups") and query.get("$top") == "1":
            return said({"@odata.context": "…", "value": []})
        if path == "/v1.0/users/oid-alice" and query == {"$select": "id,accountEnabled"} and not self.gone:
            return self.stated({"@odata.context": "…", "id": "oid-alice", "accountEnabled": True})
        if path == "/v1.0/users/oid-alice/transitiveMemberOf" and not self.gone:
            return self._members(int(query.get("$skiptoken", "0")))
        return said({"error": {"code": "Request_ResourceNotFound", "message": "…", "innerError": {}}}, 404)

    def _members(self, number: int) -> Said:
        kinds = ["group", "group", "group", "directoryRole"]
        ids = [*self.groups, "22222222-0000-0000-0000-000000000001"]
        value = [{"@odata.type": f"#microsoft.graph.{kinds[number]}", "id": ids[number]}]
        link = (
            self.next_link or f"{self.url}/v1.0/users/oid-alice/transitiveMemberOf?$select=id&$skiptoken={number + 1}"
        )
        return said({"@odata.context": "…", "value": value} | ({"@odata.nextLink": link} if number < 3 else {}))
