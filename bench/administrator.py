"""An administrator at web, over HTTPS, as a browser asks it: with a session, a form's token, and redirects followed."""

from __future__ import annotations

import http.client
import secrets
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.models import User
from django.test import Client
from django.test.utils import setup_test_environment

from bench.load import TIMEOUT, Target, WrongAnswer
from core import clock
from core.second_factor.proof import SHOWN_AT
from tests.admin_site import form_data

BOUNDARY = "----a-file"


class Administrator:
    """``target`` is web."""

    def __init__(self, target: Target) -> None:
        self._target = target
        setup_test_environment()  # answers keep what their pages were made from
        self._local = Client()  # makes the session, and knows what a form holds
        self._local.force_login(User.objects.create_superuser(f"bench-{secrets.token_hex(4)}"))
        session = self._local.session
        session[SHOWN_AT] = clock.now()  # as if they had shown their second factor
        session.save()
        self._token = secrets.token_hex(16)

    def get(self, path: str) -> bytes:
        return self._ask("GET", path)[1]

    def post(self, path: str, data: dict[str, Any]) -> None:
        self._send(path, urlencode(data, doseq=True).encode(), "application/x-www-form-urlencoded")

    def save(self, path: str, **changes: str) -> None:
        data = form_data(self._local.get(path, secure=True)) | changes
        self.post(path, {name: value for name, value in data.items() if value not in (None, "")})

    def upload(self, path: str, raw: bytes) -> str:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="people.csv"\r\n\r\n'
        body = head.encode() + raw + f"\r\n--{BOUNDARY}--\r\n".encode()
        return self._send(path, body, f"multipart/form-data; boundary={BOUNDARY}")

    def _send(self, path: str, body: bytes, kind: str) -> str:
        """Where it led. A page that is no redirect is a form with errors, or a question."""
        where, page = self._ask("POST", path, body, {"Content-Type": kind})
        if not where:
            raise WrongAnswer(f"{path} was not done: {page[-300:]!r}")
        self.get(where)
        return where

    def _ask(self, method: str, path: str, body: bytes = b"", headers: Any = None) -> tuple[str, bytes]:
        """The address of a redirect, empty for a page; and the page."""
        origin = f"https://127.0.0.1:{self._target.port}"
        cookies = {name: morsel.value for name, morsel in self._local.cookies.items()} | {"csrftoken": self._token}
        sent = {
            "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()),
            "X-CSRFToken": self._token,
            "Origin": origin,
            "Referer": origin + path,
        }
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._target.port, timeout=TIMEOUT, context=self._target.tls
        )
        try:
            connection.request(method, path, body or None, {**sent, **(headers or {})})
            response = connection.getresponse()
            page = response.read()
        finally:
            connection.close()
        if response.status not in (200, 302) or "/login/" in (response.headers["Location"] or ""):
            raise WrongAnswer(f"{method} {path}: {response.status} {page[-300:]!r}")
        return response.headers["Location"] or "", page
