"""The validation server of our own, and one that lies."""

from __future__ import annotations

from core.http import Limits
from tests.counterpart import serving
from users.factors.yubikey import validation
from users.factors.yubikey.enrolment import add_key

from ..test_yubikey import API_KEY, saying
from ..yubiserver import Key, yubiserver
from .bench import SHORT, Bench


class YubiKeyBench(Bench):
    kind = "yubikey"

    def prepare(self) -> None:
        self.monkeypatch.setattr(validation, "LIMITS", SHORT)
        self.mine, self.bobs = Key("cccccccccccb"), Key("cccccccccccd")
        add_key(self.alice, self.mine.public)
        add_key(self.bob, self.bobs.public)

    def at(self, url: str, key: str = API_KEY) -> None:
        self.provider({"servers": url, "client_id": "1"}, {"secret_key": key})

    def real(self) -> None:
        self.monkeypatch.setattr(validation, "LIMITS", Limits(connect=60.0, total=60.0))
        server = self.stack.enter_context(yubiserver(self.mine, self.bobs))
        self.at(server.url, server.key)

    def right(self) -> str:
        self.real()
        return self.code(self.mine.touch())

    def wrong(self) -> str:
        self.real()
        return self.code(self.mine.public + "b" * 32)

    def replayed(self) -> str:
        self.real()
        otp = self.mine.touch()
        assert self.code(otp) == "allowed"
        return self.code(otp, wg_public_key="another")

    def expired(self) -> str:
        self.real()
        earlier, later = self.mine.touch(), self.mine.touch()
        assert self.code(later) == "allowed"
        return self.code(earlier, wg_public_key="another")

    def others(self) -> str:
        self.real()
        return self.code(self.bobs.touch())

    def down(self) -> str:
        self.at(self.nowhere())
        return self.code(self.mine.touch())

    def slow(self) -> str:
        self.at(self.silent())
        return self.code(self.mine.touch())

    def lying(self) -> str:
        self.monkeypatch.setattr(validation, "LIMITS", Limits(connect=60.0, total=60.0))
        self.at(self.stack.enter_context(serving(saying("OK", key="b3RoZXI="))).url)
        return self.code(self.mine.touch())
