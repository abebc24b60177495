"""A stand-in of Okta's service, written from its documentation, that checks tokens and paths."""

from __future__ import annotations

from typing import ClassVar

from tests.counterpart import serving
from users.factors.okta import api
from users.factors.okta.factor import OktaPush

from ..okta_service import TOKEN, OktaService, error, said
from .bench import SHORT, Bench


class OktaBench(Bench):
    kind = "okta"
    typed: ClassVar[str] = ""

    def prepare(self) -> None:
        self.monkeypatch.setattr(OktaPush, "pause", staticmethod(lambda seconds: None))

    def at(self, url: str) -> None:
        self.provider({"address": url}, {"token": TOKEN})

    def result(self, name: str) -> str:
        service = OktaService(results=[{"factorResult": "WAITING"}, {"factorResult": name}])
        service.code = said({"factorResult": name})
        self.at(self.stack.enter_context(serving(service)).url)
        return self.code(self.typed)

    def right(self) -> str:
        return self.result("SUCCESS")

    def wrong(self) -> str:
        return self.result("REJECTED")

    def replayed(self) -> str:
        assert self.right() == "allowed"
        self.result("REJECTED")
        return self.code(self.typed, wg_public_key="another")

    def expired(self) -> str:
        return self.result("TIMEOUT")

    def others(self) -> str:
        """Okta finds somebody else by that name."""
        bobs = said({"id": "00u1", "status": "ACTIVE", "profile": {"login": self.bob.email}})
        self.at(self.stack.enter_context(serving(OktaService(user=bobs))).url)
        return self.code(self.typed)

    def down(self) -> str:
        self.at(self.nowhere())
        return self.code(self.typed)

    def slow(self) -> str:
        self.monkeypatch.setattr(api, "LIMITS", SHORT)
        self.at(self.silent())
        return self.code(self.typed)

    def lying(self) -> str:
        return self.result("SUCCES")


class OktaPasscodeBench(OktaBench):
    kind = "okta_otp"
    typed = "123456"

    def wrong(self) -> str:
        service = OktaService(code=error(403, "E0000068"))
        self.at(self.stack.enter_context(serving(service)).url)
        return self.code(self.typed)

    def replayed(self) -> str:
        assert self.right() == "allowed"
        self.result("PASSCODE_REPLAYED")
        return self.code(self.typed, wg_public_key="another")

    def expired(self) -> str:
        return self.result("TIME_WINDOW_EXCEEDED")
