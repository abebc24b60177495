"""Okta's core API, as far as users and their factors go."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from core.http import Answer, Limits, NoAnswer, host_of, request
from users.factors.remote import Malformed, RefusesUs

LIMITS = Limits(connect=4.0, total=10.0, size=1 << 20)


@dataclass(frozen=True, slots=True)
class Organization:
    """``address``: ``https://ORG.okta.com``. ``client``: the address of the user, for Okta's own policies and log."""

    address: str
    token: str = field(repr=False)
    ca: str = field(default="", repr=False)
    client: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """``said``: the body, an object or a list; None where there is none."""

    status: int
    said: Any = field(repr=False)

    def object(self) -> Mapping[str, Any]:
        """Raise ``Malformed``."""
        if not isinstance(self.said, dict):
            raise Malformed
        return self.said

    def error(self) -> str:
        """Okta's code for what was wrong, empty where it says none."""
        code = self.said.get("errorCode") if isinstance(self.said, dict) else ""
        return code if isinstance(code, str) else ""


def ask(okta: Organization, method: str, path: str, body: Mapping[str, object] | None = None) -> Answered:
    """``path`` begins behind ``/api/v1``. Raise ``NoAnswer`` (also where Okta is too busy), ``RefusesUs``,
    ``Malformed``."""
    return _send(okta, method, f"{okta.address}/api/v1{path}", body)


def follow(okta: Organization, method: str, links: object, name: str) -> Answered:
    """What Okta said to ask next. Raise as ``ask``, and ``Malformed`` for a link that leads to somebody else: the token
    goes with it."""
    link = links.get(name) if isinstance(links, dict) else None
    url = link.get("href") if isinstance(link, dict) else None
    if not isinstance(url, str) or urlsplit(url)[:2] != urlsplit(okta.address)[:2]:
        raise Malformed
    return _send(okta, method, url, None)


def segment(text: str) -> str:
    """As one part of a path."""
    return quote(text, safe="")


def _send(okta: Organization, method: str, url: str, body: Mapping[str, object] | None) -> Answered:
    headers = {"Authorization": f"SSWS {okta.token}", "Accept": "application/json", "Content-Type": "application/json"}
    if okta.client:
        headers["X-Forwarded-For"] = okta.client
    text = b"" if body is None else json.dumps(body).encode()
    named = frozenset({host_of(okta.address)})
    answer = request(method, url, headers=headers, body=text, named=named, ca=okta.ca, limits=LIMITS)
    return _read(answer)


def _read(answer: Answer) -> Answered:
    if answer.status >= 500 or answer.status == 429:
        raise NoAnswer(f"{answer.host} is not able to answer now ({answer.status}).")
    if answer.status == 401:
        raise RefusesUs("E0000011")
    if 300 <= answer.status < 400:
        raise Malformed
    try:
        said = answer.json() if answer.body else None
    except NoAnswer:
        raise Malformed from None
    answered = Answered(answer.status, said)
    if answered.error() == "E0000006":
        raise RefusesUs("E0000006")
    return answered
