"""A stand-in for Duo's service, which cannot be reached from tests: written from its documentation, apart from our
client. It checks the real signature of each request, its date and its parameters, and speaks the documented answers and
errors of the Auth API's version 2."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from tests.counterpart import Asked, Said

IKEY, SKEY = "DITESTTESTTESTTEST00", "secretsecretsecretsecret"
SKEW = 300


def ok(**response: Any) -> Said:
    return Said(200, json.dumps({"stat": "OK", "response": response}).encode())


def fail(status: int, code: int, message: str) -> Said:
    return Said(status, json.dumps({"stat": "FAIL", "code": code, "message": message}).encode())


PHONE = {"device": "DPFZRS9FB0D46QFTM891", "type": "phone", "capabilities": ["auto", "push", "sms", "mobile_otp"]}
# What belongs to each factor, beside what may.
_NEEDED = {
    "push": {"username", "factor", "device"},
    "phone": {"username", "factor", "device"},
    "passcode": {"username", "factor", "passcode"},
}
ALLOW = ok(result="allow", status="allow", status_msg="Success. Logging you in...")


@dataclass
class DuoService:
    """``preauth`` and ``auth`` make the answers, of the request's parameters; ``now`` is its clock."""

    now: float
    preauth: Callable[[dict[str, str]], Said] = lambda sent: ok(result="auth", status_msg="", devices=[PHONE])
    auth: Callable[[dict[str, str]], Said] = lambda sent: ALLOW
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def __call__(self, asked: Asked) -> Said:
        parts = urlsplit(asked.path)
        text = asked.body.decode() if asked.method == "POST" else parts.query
        sent = dict(parse_qsl(text, strict_parsing=True)) if text else {}
        if refusal := self._refusal(asked, parts.path, sent):
            return refusal
        self.asked.append((parts.path, sent))
        if (asked.method, parts.path) == ("GET", "/auth/v2/check"):
            return ok(time=int(self.now))
        if (asked.method, parts.path) == ("POST", "/auth/v2/preauth") and "username" in sent:
            return self.preauth(sent)
        if (asked.method, parts.path) == ("POST", "/auth/v2/auth") and _NEEDED.get(sent.get("factor", "")) == {
            *sent
        } - {"ipaddr", "hostname", "type", "display_username", "pushinfo"}:
            return self.auth(sent)
        return fail(400, 40002, "Invalid request parameters")

    def _refusal(self, asked: Asked, path: str, sent: dict[str, str]) -> Said | None:
        scheme, _, credentials = asked.headers["authorization"].partition(" ")
        ikey, _, digest = base64.b64decode(credentials).decode().partition(":")
        if scheme != "Basic" or ikey != IKEY:
            return fail(401, 40102, "Invalid integration key in request credentials")
        host = asked.headers["host"].partition(":")[0].lower()
        pairs = sorted(f"{quote(name, '~')}={quote(value, '~')}" for name, value in sent.items())
        lines = [asked.headers["date"], asked.method, host, path, "&".join(pairs)]
        right = hmac.new(SKEY.encode(), "\n".join(lines).encode(), hashlib.sha512).hexdigest()
        skew = abs(parsedate_to_datetime(asked.headers["date"]).timestamp() - self.now)
        if not hmac.compare_digest(right, digest) or skew > SKEW:
            return fail(401, 40103, "Invalid signature in request credentials")
        return None
