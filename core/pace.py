"""Much work on the database, of which each transaction is short, leaves room for whoever wants to write beside it.

Transactions that follow each other at once let nobody in between: who waits for SQLite's one write lock asks for it
every millisecond, and it is free for less than that. So half of the time is a pause.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from django.db import connection

# Seconds of work before a pause: a connect that waits for it is late by this much.
AIM = 0.03
LONGEST_PAUSE = 1.0
# A worker goes on with one thing for so many seconds, so that what waits behind it gets its turn.
TURN = 2.0


@dataclass(slots=True)
class Pace:
    """``steady`` is a clock that nobody sets; ``pause`` lets others write."""

    steady: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    turn: float = TURN
    _until: float = field(init=False)
    _since: float = field(init=False)

    def __post_init__(self) -> None:
        self._since = self.steady()
        self._until = self._since + self.turn

    def breathe(self) -> None:
        """Between two transactions: pause for as long as was worked since the last pause, once that is worth it. Not
        inside a transaction, which would only last longer by it."""
        worked = self.steady() - self._since
        if worked < AIM or connection.in_atomic_block:
            return
        self.pause(min(worked, LONGEST_PAUSE))
        self._since = self.steady()

    @property
    def over(self) -> bool:
        """Whether the turn is: what is left is for the next one."""
        return self.steady() >= self._until
