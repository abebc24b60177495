"""Whose turn it is while more clients connect than can be served, and when the others are to come again.

All wait in the front's queue, in their order. Who has waited for long has a client that is about to give up, so it is
told to come again, and when: each at a time of its own, as far apart as connects are served. So they find a short queue
when they come, and few wait in vain a second time.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from django.conf import settings

from core import clock

# Seconds within which somebody who is told to come again is to do so, however many there are. Existing clients come
# when they like: those who wait for their turn must not be away for long meanwhile.
SOONEST, LONGEST = 2, 45
# Turns are given out closer than they were served: who comes too early waits in the queue, and who comes late (clients
# add to what they are told, so that they do not all come at once) does not leave it empty.
CLOSER = 0.6
# Connects by which the rate is measured, and seconds between two of them until there are as many as two.
SAMPLE, USUAL = 40, 0.1


@dataclass(slots=True)
class Turns:
    """Of one process: it serves a share of all who come, and gives out the same share of turns. ``steady`` is a clock
    that nobody sets."""

    steady: Callable[[], float] = clock.steady
    _begun: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLE))
    _given_out: float = -math.inf  # until then
    _taking: threading.Lock = field(default_factory=threading.Lock)

    def come_again(self, waited: float) -> int:
        """Seconds after which a client is to come again that has ``waited`` for so many; 0: it is its turn now."""
        now = self.steady()
        with self._taking:
            if waited <= settings.CONNECT_PATIENCE:
                self._begun.append(now)
                return 0
            pause = min(max(self._given_out - now, SOONEST) + CLOSER * self._apart(), LONGEST)
            self._given_out = now + pause
            return math.ceil(pause)

    def _apart(self) -> float:
        """Seconds between two connects that were served."""
        if len(self._begun) < 2:
            return USUAL
        return (self._begun[-1] - self._begun[0]) / (len(self._begun) - 1)


turns = Turns()
