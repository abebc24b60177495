"""OneLogin's API, as far as users and their authentication factors go: OAuth's client credentials, then JSON."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus

from core import clock
from core.crypto import keyed_hash
from core.http import Answer, Limits, NoAnswer, host_of, request
from users.factors.remote import Malformed, RefusesUs

LIMITS = Limits(connect=4.0, total=10.0, size=1 << 20)
WHERE_TOKENS_ARE = "/auth/oauth2/v2/token"
# Seconds before its end from which a token is not used any more.
SPARE = 300
_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class Account:
    """``address``: ``https://NAME.onelogin.com``; the other two are of an API credential."""

    address: str
    client_id: str
    client_secret: str = field(repr=False)
    ca: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Answered:
    """``said``: the body; None where there is none, or where a refusal's is no JSON."""

    status: int
    said: Any = field(repr=False)

    def object(self) -> Mapping[str, Any]:
        """Also where it stands alone in a list, as their documentation shows it here and there. Raise ``Malformed``."""
        said = self.said[0] if isinstance(self.said, list) and len(self.said) == 1 else self.said
        if not isinstance(said, dict):
            raise Malformed
        return said

    def objects(self) -> list[Mapping[str, Any]]:
        """Raise ``Malformed``."""
        if self.status != 200 or not isinstance(self.said, list):
            raise Malformed
        if not all(isinstance(each, dict) for each in self.said):
            raise Malformed
        return self.said


# By account: a token, and until when it is used, by the steady clock. OneLogin gives the same one until it expires.
_tokens: dict[str, tuple[str, float]] = {}
_lock = threading.Lock()


def forget_tokens() -> None:
    """For tests."""
    with _lock:
        _tokens.clear()


def ask(account: Account, method: str, path: str, body: Mapping[str, object] | None = None) -> Answered:
    """With a token that is new, if the one that we have is not taken. Raise ``NoAnswer`` (also where OneLogin is too
    busy), ``RefusesUs``, ``Malformed``."""
    token = _kept(account)
    answered = _ask_with(account, token, method, path, body) if token else None
    if answered is None or answered.status == 401:
        answered = _ask_with(account, _new_token(account), method, path, body)
    if answered.status in (401, 403):
        raise RefusesUs(str(answered.status))
    return answered


def ask_once(account: Account, method: str, path: str, body: Mapping[str, object]) -> Answered:
    """As ``ask``, where a refusal may be about what is asked: nothing is sent twice. Call it after ``ask``."""
    return _ask_with(account, _kept(account) or _new_token(account), method, path, body)


def _ask_with(
    account: Account, token: str, method: str, path: str, body: Mapping[str, object] | None = None
) -> Answered:
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json", "Content-Type": "application/json"}
    return _read(_send(account, method, path, headers, b"" if body is None else json.dumps(body).encode()))


def identity(value: object) -> str:
    """An id, which is a number here and a text there, as one part of a path. Raise ``Malformed``."""
    if isinstance(value, bool) or not isinstance(value, int | str) or not _ID.fullmatch(str(value)):
        raise Malformed
    return str(value)


def query(text: str) -> str:
    return quote_plus(text)


def _name(account: Account) -> str:
    # The secret, too: a new one must be shown that it is right.
    return keyed_hash("onelogin", account.address, account.client_id, account.client_secret)


def _kept(account: Account) -> str:
    with _lock:
        token, until = _tokens.get(_name(account), ("", 0.0))
    return token if clock.steady() < until else ""


def _new_token(account: Account) -> str:
    pair = f"{quote_plus(account.client_id)}:{quote_plus(account.client_secret)}".encode()
    headers = {"Authorization": f"Basic {base64.b64encode(pair).decode()}", "Content-Type": "application/json"}
    body = json.dumps({"grant_type": "client_credentials"}).encode()
    answered = _read(_send(account, "POST", WHERE_TOKENS_ARE, headers, body))
    if 400 <= answered.status < 500:
        raise RefusesUs(str(answered.status))
    said = answered.object()
    token, lasts = said.get("access_token"), said.get("expires_in")
    if answered.status != 200 or not isinstance(token, str) or not token or not token.isascii():
        raise Malformed
    seconds = lasts - SPARE if isinstance(lasts, int) else 0
    with _lock:
        _tokens[_name(account)] = token, clock.steady() + seconds
    return token


def _send(account: Account, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
    named = frozenset({host_of(account.address)})
    url = f"{account.address}{path}"
    return request(method, url, headers=headers, body=body, named=named, ca=account.ca, limits=LIMITS)


def _read(answer: Answer) -> Answered:
    if answer.status >= 500 or answer.status == 429:
        raise NoAnswer(f"{answer.host} is not able to answer now ({answer.status}).")
    if 300 <= answer.status < 400:
        raise Malformed
    try:
        return Answered(answer.status, answer.json() if answer.body else None)
    except NoAnswer:
        if answer.status >= 400:
            return Answered(answer.status, None)
        raise Malformed from None
