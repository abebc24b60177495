"""A RADIUS server that does as each case says."""

from __future__ import annotations

from collections.abc import Callable

from ..radius.freeradius import SECRET
from ..radius.liar import REJECT, Liar, password_of, reply
from .bench import Bench, free_port


class RadiusBench(Bench):
    kind = "radius"

    def at(self, address: str, timeout: int = 30) -> None:
        says = {"servers": address, "patience": 30, "timeout": timeout, "tries": 1}
        self.provider(says, {"shared_secret": SECRET})

    def answering(self, answer: Callable[[bytes], list[bytes]], timeout: int = 30) -> None:
        liar = self.stack.enter_context(Liar())
        liar.says = lambda request, before: answer(request)
        self.at(liar.address, timeout)

    def judging(self) -> None:
        # A request names its user before the password.
        pairs = {b"alice": "sesame", b"bob": "open"}

        def judge(request: bytes) -> list[bytes]:
            right = any(name in request and password_of(request) == password for name, password in pairs.items())
            return [reply(request) if right else reply(request, REJECT)]

        self.answering(judge)

    def right(self) -> str:
        self.judging()
        return self.code("sesame")

    def wrong(self) -> str:
        self.judging()
        return self.code("sesams")

    def others(self) -> str:
        self.judging()
        assert self.code("open", self.bob) == "allowed"
        return self.code("open")

    def down(self) -> str:
        self.at(f"127.0.0.1:{free_port()}", timeout=1)
        return self.code("sesame")

    def slow(self) -> str:
        self.answering(lambda request: [], timeout=1)
        return self.code("sesame")

    def lying(self) -> str:
        self.answering(lambda request: [reply(request, secret="another")], timeout=1)
        return self.code("sesame")
