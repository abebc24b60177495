"""Much work on the database, of which each transaction is short, leaves room for whoever wants to write beside it.

Transactions that follow each other at once let nobody in between: who waits for SQLite's one write lock asks for it
every millisecond, and it is free for less than that. So half of the time is a pause, whatever else this process works
at: what one thread has worked, all of them rest for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from django.db import connection

from . import clock

# Seconds of work before a pause, and what a step of a job should take: who waits for it is late by this much.
AIM = 0.02
LONGEST_PAUSE = 1.0
# The same where web computes: its threads take turns, and one that computes gives up its own after 5 ms only.
AIM_IN_WEB = 0.002
# A worker goes on with one thing for so many seconds, so that what waits behind it gets its turn.
TURN = 2.0


class _Rest:
    """Until when this process rests, by a clock that nobody sets."""

    def __init__(self) -> None:
        self._until = 0.0
        self._taking = threading.Lock()

    def left(self, now: float, worked: float) -> float:
        """Seconds to rest from ``now`` on, for what others have worked and for what was ``worked`` here."""
        with self._taking:
            owed = self._until - now
            if not 0.0 < owed < LONGEST_PAUSE:
                owed = 0.0
            owed = min(owed + worked, LONGEST_PAUSE)
            self._until = now + owed
            return owed


_rest = _Rest()


@dataclass(slots=True)
class Pace:
    """``steady`` is a clock that nobody sets; ``pause`` lets others write. ``aim``: seconds of work before a pause."""

    steady: Callable[[], float] = clock.steady
    pause: Callable[[float], None] = field(default_factory=lambda: time.sleep)
    turn: float = TURN
    aim: float = AIM
    _until: float = field(init=False)
    _since: float = field(init=False)

    def __post_init__(self) -> None:
        self._since = self.steady()
        self._until = self._since + self.turn

    def breathe(self) -> None:
        """Between two transactions: pause for as long as was worked since the last pause, once that is worth it. Not
        inside a transaction, which would only last longer by it."""
        now = self.steady()
        if now - self._since < self.aim or connection.in_atomic_block:
            return
        self.pause(_rest.left(now, now - self._since))
        self._since = self.steady()

    @property
    def over(self) -> bool:
        """Whether the turn is: what is left is for the next one."""
        return self.steady() >= self._until
