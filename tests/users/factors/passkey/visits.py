"""A client that waits, and its user's browser with a passkey, on our own sign-in page and on the user's own page."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass, field
from typing import Any

from django.test import Client

from tests.factories import Company
from tests.passkey_maker import PasskeyMaker
from tests.protocol_client import NOW
from tests.users.factors.oidc.attempts import Visit
from tests.wgpeers.profiles.own_pages import OwnPage, said_by
from users.models import VpnUser

SITE, ORIGIN = "vpn.example.com", "https://vpn.example.com:8443"


def a_maker(**changes: Any) -> PasskeyMaker:
    return PasskeyMaker(**{"site": SITE, "origin": ORIGIN, **changes})


def ask(company: Company, mode: str = "required") -> None:
    company.server.factors.all().delete()
    company.server.factors.create(kind="passkey", mode=mode)


def given(response: Any) -> dict[str, Any]:
    """What the page's script finds."""
    found = re.search(r'data-given="([^"]*)"', response.content.decode())
    assert found, said_by(response) or response.content.decode()[:2000]
    return dict(json.loads(html.unescape(found[1])))


class HttpsClient(Client):
    """A browser that opened a page of ours over TLS, and says so with each form. Django checks its tokens."""

    def __init__(self, origin: str = ORIGIN) -> None:
        headers = {"host": origin.removeprefix("https://"), "origin": origin, "accept": "text/html"}
        super().__init__(enforce_csrf_checks=True, headers=headers)

    def generic(self, *args: Any, **kwargs: Any) -> Any:
        return super().generic(*args, **(kwargs | {"secure": True}))


class OwnPasskeys(OwnPage):
    """The page below the name that passkeys are for."""

    def __init__(self, user: VpnUser, now: float = NOW, origin: str = ORIGIN) -> None:
        super().__init__(user, now, browser=HttpsClient(origin))

    def begin(self, name: str = "laptop", **proofs: str) -> Any:
        return self.factor("passkey", "begin", name=name, **proofs)

    def add(self, maker: PasskeyMaker, name: str = "laptop", **proofs: str) -> str:
        answer = maker.create(given(self.begin(name, **proofs)))
        return said_by(self.factor("passkey", "add", name=name, answer=answer))

    def show(self, maker: PasskeyMaker) -> str:
        answer = maker.get(given(self.factor("passkey", "ask")))
        return said_by(self.factor("passkey", "show", answer=answer))


@dataclass
class PasskeyVisit(Visit):
    """``browser`` comes over TLS, to the name in the address that the client opens."""

    browser: Client = field(default_factory=HttpsClient)

    def get(self) -> str:
        return html.unescape(self.browser.get(self.page).content.decode())

    def question(self) -> dict[str, Any]:
        """As the page's script fetches it."""
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.get())
        assert token
        response = self.browser.post(f"{self.page}/question", headers={"x-csrftoken": token[1]})
        return dict(json.loads(response.content))

    def answer(self, answer: str) -> str:
        """What the page says of it."""
        token = self.browser.cookies["csrftoken"].value
        form = {"csrfmiddlewaretoken": token, "answer": answer}
        response = self.browser.post(self.page, form, follow=True)
        return html.unescape(response.content.decode())

    def show(self, maker: PasskeyMaker) -> str:
        return self.answer(maker.get(self.question()))
