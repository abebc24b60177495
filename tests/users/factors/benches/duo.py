"""A stand-in of Duo's service, written from its documentation, that checks real signatures."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from tests.counterpart import Said, serving
from tests.protocol_client import NOW
from users.factors.duo import api

from ..duo_service import ALLOW, IKEY, SKEY, DuoService, ok
from .bench import SHORT, Bench


class DuoBench(Bench):
    kind = "duo"

    def at(self, url: str) -> None:
        self.provider({"address": url, "integration_key": IKEY}, {"secret_key": SKEY})

    def saying(self, auth: Callable[[dict[str, str]], Said]) -> None:
        self.at(self.stack.enter_context(serving(DuoService(NOW, auth=auth))).url)

    def result(self, status: str) -> str:
        self.saying(lambda sent: ok(result="deny", status=status, status_msg="…"))
        return self.code(self.typed)

    typed: ClassVar[str] = ""

    def right(self) -> str:
        self.saying(lambda sent: ALLOW)
        return self.code(self.typed)

    def wrong(self) -> str:
        return self.result("deny")

    def replayed(self) -> str:
        assert self.right() == "allowed"
        self.wrong()
        return self.code(self.typed, wg_public_key="another")

    def expired(self) -> str:
        return self.result("timeout")

    def others(self) -> str:
        """Bob's phone says yes, or it is his code."""
        deny = ok(result="deny", status="deny", status_msg="…")
        self.saying(lambda sent: ALLOW if sent["username"] == self.bob.email else deny)
        assert self.code(self.typed, self.bob) == "allowed"
        return self.code(self.typed, wg_public_key="another")

    def down(self) -> str:
        self.at(self.nowhere())
        return self.code(self.typed)

    def slow(self) -> str:
        self.monkeypatch.setattr(api, "LIMITS", SHORT, raising=False)
        self.at(self.silent())
        return self.code(self.typed)

    def lying(self) -> str:
        self.saying(lambda sent: Said(200, b'{"stat": "OK", "response": {"result": "allowed"}}'))
        return self.code(self.typed)


class DuoPasscodeBench(DuoBench):
    kind = "duo_otp"
    typed = "123456"
