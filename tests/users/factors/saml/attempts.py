"""A client and its user's browser, from the connect to the sealed answer."""

from __future__ import annotations

import json
from typing import Any

from django.test import Client

from core.crypto import Secret
from servers.models import ServerFactor
from tests.factories import Company
from tests.users.factors.oidc.attempts import Visit
from users.models import Provider
from wgpeers.models import Decision

from .liar import EMAIL, SamlLiar, asked_in

ACS = "/sso/saml/acs"
OURS = "https://vpn.acme.example"


def a_provider(metadata: str, name: str = "Acme", key: str = "", **settings: Any) -> Provider:
    said = {"metadata": metadata, "our_address": OURS, "address_attribute": EMAIL, **settings}
    secrets = Secret.of(json.dumps({"our_key": key}))
    return Provider.objects.create(kind="saml", name=name, settings=said, secrets=secrets)


def ask(company: Company, provider: Provider | None = None, **settings: Any) -> ServerFactor:
    company.server.factors.all().delete()
    row: ServerFactor = company.server.factors.create(
        kind="saml", mode="required", provider=provider, settings={"groups": "", **settings}
    )
    return row


class SamlVisit(Visit):
    def post(self, answer: str, state: str) -> str:
        """What a form of another site posts, with which browsers send no cookie; where that leads."""
        response = Client(enforce_csrf_checks=True).post(ACS, {"SAMLResponse": answer, "RelayState": state})
        assert response.status_code in (303, 400)
        return response.headers.get("Location", "")

    def bring(self, answer: str, state: str) -> str:
        """What the page says in the end."""
        return self.come_back(self.post(answer, state) or "/sso/back")

    def sign_in(self, liar: SamlLiar, **says: Any) -> str:
        address = self.press()
        return self.bring(liar.answer(address, **says), asked_in(address)["RelayState"])

    def outcome(self, liar: SamlLiar, **says: Any) -> str:
        """The code with which a connect is refused after this sign-in, or "allowed"."""
        self.connect()
        self.sign_in(liar, **says)
        self.wait()
        return Decision.objects.latest("pk").code
