"""Much work on the database, of which each transaction is short, leaves room for whoever wants to write beside it.

Transactions that follow each other at once let nobody in between: who waits for SQLite's one write lock asks for it
every millisecond, and it is free for less than that. So half of the time is a pause, whatever else this process works
at: what one thread has worked, all of them rest for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import ClassVar, TypeVar

from django.db import connection

from . import clock

T = TypeVar("T")

# Seconds of work before a pause, and what one transaction should take. A connect has two transactions of its own, each
# of 1 to 5 ms, and is late by as much as it waits before either.
AIM = 0.005
LONGEST_PAUSE = 1.0
# The same where web computes: other requests of its process wait for their turn after each of their statements.
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
class Room:
    """What one transaction may do: ``most`` items by statements that deal with many at once, and of what is done one by
    one (``each``) as much as ``AIM`` seconds are enough for, by ``steady``."""

    most: int
    steady: Callable[[], float] = clock.steady
    taken: int = field(default=0, init=False)
    _until: float = field(init=False)

    def __post_init__(self) -> None:
        self._until = self.steady() + AIM

    @property
    def left(self) -> bool:
        """Whether there is time for more."""
        return self.steady() < self._until

    def each(self, items: Iterable[T]) -> Iterator[T]:
        """The first of ``items``, at least one; ``taken`` is how many it were."""
        for item in islice(items, self.most):
            self.taken += 1
            yield item
            if not self.left:
                return


@dataclass(slots=True)
class Stride:
    """How many items one transaction should deal with, so that it takes as long as ``AIM``: measured. Not fewer than
    ``LEAST``: beside them, what a transaction costs by itself is most of it."""

    LEAST: ClassVar[int] = 10
    MOST: ClassVar[int] = 900  # primary keys of one statement, of which SQLite may take no more than 999
    size: int = 4

    @contextmanager
    def measured(self, done: int, steady: Callable[[], float]) -> Iterator[None]:
        """Around one transaction that deals with ``done`` items."""
        began = steady()
        yield
        self.took(done, steady() - began)

    def took(self, done: int, seconds: float) -> None:
        """A transaction had room for ``size`` items, dealt with ``done`` of them and took so long."""
        fits = int(done * AIM / max(seconds, 0.0001))
        if seconds > AIM:
            self.size = max(min(self.size, self.LEAST), min(self.size, fits))
        elif done >= self.size:
            self.size = min(self.MOST, 2 * self.size, fits)

    def failed(self) -> None:
        """Perhaps by one item alone."""
        self.size = 1


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
