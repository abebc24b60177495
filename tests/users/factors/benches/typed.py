"""What users type: a PIN, and an authenticator app's code."""

from __future__ import annotations

from typing import ClassVar

from core.crypto import Secret
from tests.attempts import TOTP_SECRET, code_at, pin_hash, wrong_code
from tests.protocol_client import NOW

from .bench import Bench


class PinBench(Bench):
    kind = "pin"

    def prepare(self) -> None:
        self.alice.enrolments.create(kind="pin", hash=pin_hash("w0mbat"))
        self.bob.enrolments.create(kind="pin", hash=pin_hash("qu0kka77"))

    def right(self) -> str:
        return self.code("w0mbat")

    def wrong(self) -> str:
        return self.code("w0mbet")

    def others(self) -> str:
        assert self.code("qu0kka77", self.bob) == "allowed"
        return self.code("qu0kka77")


class TotpBench(Bench):
    kind = "totp"
    bobs: ClassVar[str] = "KRSXG5CTMVRXEZLUKRSXG5CTMVRXEZLU"

    def prepare(self) -> None:
        self.alice.enrolments.create(kind="totp", secret=Secret.of(TOTP_SECRET))
        self.bob.enrolments.create(kind="totp", secret=Secret.of(self.bobs))

    def right(self) -> str:
        return self.code(code_at(NOW))

    def wrong(self) -> str:
        return self.code(wrong_code())

    def replayed(self) -> str:
        assert self.right() == "allowed"
        return self.code(code_at(NOW), wg_public_key="another")

    def expired(self) -> str:
        return self.code(code_at(NOW - 120))

    def others(self) -> str:
        assert self.code(code_at(NOW, self.bobs), self.bob) == "allowed"
        return self.code(code_at(NOW, self.bobs), wg_public_key="another")
