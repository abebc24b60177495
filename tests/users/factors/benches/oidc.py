"""A provider to sign in at, that lies where a case says so."""

from __future__ import annotations

from typing import Any

from tests.protocol_client import NOW
from users.factors.oidc import discovery

from ..oidc.attempts import Visit, a_provider
from ..oidc.liar import Liar, lying, unsigned
from .bench import SHORT, Bench, came_to


class OidcBench(Bench):
    kind = "oidc"
    liar: Liar

    def prepare(self) -> None:
        self.settings.SIGN_IN_HOLD = 0.0
        self.settings.SESSION_COOKIE_SECURE = self.settings.CSRF_COOKIE_SECURE = False
        discovery.forget()
        self.liar = self.stack.enter_context(lying(Liar()))
        a_provider(self.liar.url)

    def signed_in(self, **claims: Any) -> str:
        visit = Visit(self.identity)
        visit.connect()
        visit.come_back(self.liar.sign_in(visit.press(), **claims))
        return came_to(visit.wait())

    def right(self) -> str:
        return self.signed_in()

    def wrong(self) -> str:
        visit = Visit(self.identity)
        visit.connect()
        state = self.liar.sign_in(visit.press()).partition("&state=")[2]
        visit.come_back(f"/sso/back?error=access_denied&state={state}")
        return came_to(visit.wait())

    def replayed(self) -> str:
        assert self.right() == "allowed"
        visit = Visit(self.identity)
        visit.connect()
        state = self.liar.sign_in(visit.press()).partition("&state=")[2]
        visit.come_back(f"/sso/back?code=code-1&state={state}")
        return came_to(visit.wait())

    def expired(self) -> str:
        return self.signed_in(iat=int(NOW) - 7200, exp=int(NOW) - 3600)

    def others(self) -> str:
        return self.signed_in(sub="sub-bob", email="bob@acme.example")

    def down(self) -> str:
        self.liar.down = True
        return came_to(Visit(self.identity).connect())

    def slow(self) -> str:
        self.monkeypatch.setattr(discovery, "LIMITS", SHORT)
        self.without_providers()
        a_provider(self.silent())
        return came_to(Visit(self.identity).connect())

    def lying(self) -> str:
        self.liar.forge = unsigned
        return self.signed_in()
