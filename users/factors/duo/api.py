"""Duo's Auth API, version 2: requests signed with the secret key, by our own door for requests to others.

Duo's own client library looks a name up and connects by itself; what it adds to that are the lines of ``signed``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import quote

from core.http import Answer, Limits, NoAnswer, host_of, request
from users.factors.remote import Malformed, RefusesUs

USUAL = Limits(connect=4.0, total=10.0, size=65536)


@dataclass(frozen=True, slots=True)
class Application:
    """An application of Duo's admin panel. ``address``: ``https://api-….duosecurity.com``."""

    address: str
    integration_key: str
    secret_key: str = field(repr=False)
    ca: str = field(default="", repr=False)


def encoded(parameters: Mapping[str, str]) -> str:
    pairs = ((quote(name, safe="~"), quote(value, safe="~")) for name, value in parameters.items())
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def signed(application: Application, method: str, path: str, parameters: Mapping[str, str], date: str) -> str:
    """The value of the header Authorization. ``date`` is that of the header Date."""
    text = "\n".join((date, method, host_of(application.address), path, encoded(parameters)))
    digest = hmac.new(application.secret_key.encode(), text.encode(), hashlib.sha512).hexdigest()
    return "Basic " + base64.b64encode(f"{application.integration_key}:{digest}".encode()).decode()


def ask(
    application: Application, method: str, path: str, parameters: Mapping[str, str], now: float, seconds: float = 10.0
) -> Mapping[str, Any]:
    """Duo's ``response``; ``now`` is Unix seconds. Raise ``NoAnswer`` (also where Duo is too busy), ``RefusesUs``,
    ``Malformed``."""
    date = formatdate(now)
    headers = {"Date": date, "Authorization": signed(application, method, path, parameters, date)}
    text, url, body = encoded(parameters), f"{application.address}{path}", b""
    if method == "GET":
        url += f"?{text}" if text else ""
    else:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        body = text.encode()
    limits = Limits(USUAL.connect, seconds, USUAL.size)
    named = frozenset({host_of(application.address)})
    return _response(request(method, url, headers=headers, body=body, named=named, ca=application.ca, limits=limits))


def _response(answer: Answer) -> Mapping[str, Any]:
    if answer.status >= 500 or answer.status == 429:
        raise NoAnswer(f"{answer.host} is not able to answer now ({answer.status}).")
    if answer.status == 401:
        raise RefusesUs("401")
    try:
        said = answer.json()
    except NoAnswer:
        raise Malformed from None
    if not isinstance(said, dict):
        raise Malformed
    if said.get("stat") == "FAIL":
        code = said.get("code")
        raise RefusesUs(str(code) if isinstance(code, int) else "FAIL")
    response = said.get("response")
    if answer.status != 200 or said.get("stat") != "OK" or not isinstance(response, dict):
        raise Malformed
    return response


def text_of(response: Mapping[str, Any], name: str) -> str:
    """Raise ``Malformed`` where it is no text."""
    value = response.get(name)
    if not isinstance(value, str):
        raise Malformed
    return value
