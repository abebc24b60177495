"""OneLogin's rows of the table. Its service cannot be reached: a stand-in, written from its documentation, that checks
credential, token and paths."""

from __future__ import annotations

from typing import Any, ClassVar

from tests.counterpart import serving
from users.factors.onelogin import api
from users.factors.onelogin.factor import OneLoginPush

from ..onelogin_service import CLIENT, SECRET, OneLoginService, a_user, error, said
from .bench import SHORT, Bench


class OneLoginBench(Bench):
    kind = "onelogin"
    typed: ClassVar[str] = ""

    def prepare(self) -> None:
        self.monkeypatch.setattr(OneLoginPush, "pause", staticmethod(lambda seconds: None))

    def at(self, url: str) -> None:
        self.provider({"address": url, "client_id": CLIENT}, {"client_secret": SECRET})

    def serving(self, **says: Any) -> None:
        self.at(self.stack.enter_context(serving(OneLoginService(**says))).url)

    def looks(self, *statuses: str) -> str:
        self.serving(results=[{"status": status} for status in ("pending", *statuses)])
        return self.code(self.typed)

    def right(self) -> str:
        return self.looks("accepted")

    def wrong(self) -> str:
        return self.looks("rejected")

    def replayed(self) -> str:
        assert self.right() == "allowed"
        self.looks("rejected")
        return self.code(self.typed, wg_public_key="another")

    def expired(self) -> str:
        self.serving(results=[{"status": "pending"}, error(404, "NotFoundError")])
        return self.code(self.typed)

    def others(self) -> str:
        """OneLogin finds somebody else by that address."""
        self.serving(users=said([a_user(self.bob.email)]))
        return self.code(self.typed)

    def down(self) -> str:
        self.at(self.nowhere())
        return self.code(self.typed)

    def slow(self) -> str:
        self.monkeypatch.setattr(api, "LIMITS", SHORT)
        self.at(self.silent())
        return self.code(self.typed)

    def lying(self) -> str:
        return self.looks("yes")


class OneLoginPasscodeBench(OneLoginBench):
    kind = "onelogin_otp"
    typed = "123456"

    def refusing(self) -> str:
        self.serving(code=error(401, "InvalidCredentials"))
        return self.code(self.typed, wg_public_key="another")

    def right(self) -> str:
        self.serving()
        return self.code(self.typed)

    def wrong(self) -> str:
        return self.refusing()

    def replayed(self) -> str:
        assert self.right() == "allowed"
        return self.refusing()

    def expired(self) -> str:
        return self.refusing()

    def lying(self) -> str:
        self.serving(code=said({"status": {"type": "success"}}))
        return self.code(self.typed)
