from __future__ import annotations

import time

import pytest

from users.factors.radius import client
from users.factors.radius.packets import Answer, Request


class Hourglass:
    """A clock that goes as it does, and can be put on."""

    ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def no_more_time_after_a_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once something came that is no answer, all patience is over: tests need not wait for that."""
    clock, judge = Hourglass(), Request.answer

    def answer(request: Request, data: bytes) -> Answer | None:
        found = judge(request, data)
        if found is None:
            clock.ahead += 1000
        return found

    monkeypatch.setattr(client, "time", clock)
    monkeypatch.setattr(Request, "answer", answer)
