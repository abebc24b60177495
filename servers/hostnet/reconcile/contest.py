"""Somebody changes what is ours again and again. It is put back each time, with growing pauses, and said."""

from __future__ import annotations

from collections.abc import Callable

from servers.hostnet.clock import steady
from servers.hostnet.state import Code, HostCondition

# Seconds. Damage that comes within CALM of the one before is of the same quarrel: more than between two full states.
CALM = 60.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
MANY = 5  # so often in one quarrel is no accident any more


class Contest:
    """Counts damage that was found and put right."""

    def __init__(self, clock: Callable[[], float] = steady) -> None:
        self._clock = clock
        self._count = 0
        self._last = 0.0

    def note(self) -> None:
        """Something of ours was found changed."""
        now = self._clock()
        self._count = self._count + 1 if self._goes_on(now) else 1
        self._last = now

    def pause(self) -> float:
        """Seconds to wait before it is put right again."""
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._count - 1, 30)) if self._count else 0.0

    def conditions(self) -> list[HostCondition]:
        if self._count < MANY or not self._goes_on(self._clock()):
            return []
        text = (
            f"Something else on this machine keeps changing what is ours: {self._count} times in a row it was put back."
            f" Until that program is found, it is put back after {LONGEST_PAUSE:g} seconds at the latest."
        )
        return [HostCondition.of(Code.CONTESTED, text)]

    def _goes_on(self, now: float) -> bool:
        return bool(self._count) and now - self._last <= CALM
