"""A client and its user's browser, from the connect to the sealed answer."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from django.test import Client

from core import clock
from core.crypto import Secret
from servers.models import ServerFactor
from tests.factories import Company
from tests.protocol_client import Identity, make_request, open_answer, plaintext
from users.models import Provider

from .liar import CLIENT, SECRET


def a_provider(issuer: str, name: str = "Acme", *, secrets: dict[str, str] | None = None, **settings: Any) -> Provider:
    said = {"issuer": issuer, "client_id": CLIENT, "our_address": "https://vpn.acme.example", **settings}
    stored = Secret.of(json.dumps(secrets or {"client_secret": SECRET}))
    return Provider.objects.create(kind="oidc", name=name, settings=said, secrets=stored)


def ask(company: Company, provider: Provider | None = None, **settings: Any) -> ServerFactor:
    company.server.factors.all().delete()
    row: ServerFactor = company.server.factors.create(
        kind="oidc", mode="required", provider=provider, settings={"groups": "", **settings}
    )
    return row


@dataclass
class Visit:
    """One attempt of one device; ``browser`` is the user's."""

    identity: Identity
    browser: Client = field(default_factory=lambda: Client(enforce_csrf_checks=True))
    fields: dict[str, Any] = field(default_factory=plaintext)
    asked: dict[str, str] = field(default_factory=dict)

    def connect(self, kind: str = "wg", **changes: Any) -> Any:
        """The opened answer; what is asked back as it came; a refusal's status."""
        now = int(clock.now())
        request = make_request(self.identity, {**self.fields, "timestamp": now, **changes}, kind=kind, now=now)
        response = request.send()
        if response.status_code != 200:
            return response.status_code
        answer = response.json()
        if "sso_url" in answer:
            self.asked = answer
            return answer
        return open_answer(answer, self.identity, request.box_private_key)

    def wait(self, token: str | None = None) -> Any:
        return self.connect("wg_wait", sso_token=self.asked["sso_token"] if token is None else token)

    @property
    def page(self) -> str:
        return urlsplit(self.asked["sso_url"]).path

    def press(self) -> str:
        """The button; where it leads."""
        shown = self.browser.get(self.page).content.decode()
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', shown)
        assert token
        said = self.browser.post(self.page, {"csrfmiddlewaretoken": token[1]}).content.decode()
        leads = re.search(r'content="0;url=([^"]+)"', said)
        return html.unescape(leads[1]) if leads else ""

    def come_back(self, address: str) -> str:
        """What the page says in the end."""
        return self.browser.get(address, follow=True).content.decode()
