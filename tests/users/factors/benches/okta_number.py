"""The rows of Okta's push with a number: the stand-in of its service, and the page on which the number is shown."""

from __future__ import annotations

from typing import Any

from tests.counterpart import serving
from users.factors.okta import api

from ..okta_service import TOKEN, OktaService, said
from ..on_phone import PhoneVisit
from .bench import SHORT, Bench, came_to


class OktaNumberBench(Bench):
    kind = "okta_number"

    def prepare(self) -> None:
        self.settings.SIGN_IN_HOLD = 0.0
        self.settings.SESSION_COOKIE_SECURE = self.settings.CSRF_COOKIE_SECURE = False

    def at(self, url: str) -> None:
        self.provider({"address": url}, {"token": TOKEN})

    def serving(self, *results: str, **says: Any) -> None:
        service = OktaService(results=[{"factorResult": result} for result in results], **says)
        self.at(self.stack.enter_context(serving(service)).url)

    def shown(self) -> str:
        visit = PhoneVisit(self.identity)
        visit.connect()
        visit.press()
        visit.look()
        return came_to(visit.wait())

    def right(self) -> str:
        self.serving("SUCCESS")
        return self.shown()

    def wrong(self) -> str:
        self.serving("REJECTED")
        return self.shown()

    def replayed(self) -> str:
        assert self.right() == "allowed"
        return self.wrong()

    def expired(self) -> str:
        self.serving("TIMEOUT")
        return self.shown()

    def others(self) -> str:
        """Okta finds somebody else by that name."""
        bobs = said({"id": "00u1", "status": "ACTIVE", "profile": {"login": self.bob.email}})
        self.serving(user=bobs)
        return self.shown()

    def down(self) -> str:
        self.at(self.nowhere())
        return self.shown()

    def slow(self) -> str:
        self.monkeypatch.setattr(api, "LIMITS", SHORT)
        self.at(self.silent())
        return self.shown()

    def lying(self) -> str:
        self.serving("SUCCES")
        return self.shown()
