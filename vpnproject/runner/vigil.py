"""Which programs hang: they run, and show no sign of life, and it is their own fault.

What counts is time in which we ourselves looked, so that a machine that slept or crawled accuses nobody. A look accuses
nobody either at which a program was busy, or at which what it depends on showed no life: then its silence starts anew.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from .processes import Process
from .signs import Activity
from .supervise import State

# Seconds of silence after which a program is taken to hang. Each has several times as many chances to show life as it
# needs: beat and control worker every second, the host worker every three, the keys worker every minute.
PATIENCE = {"redis": 30.0, "beat": 30.0, "host": 60.0, "control": 60.0, "keys": 300.0}
PATIENCE |= {"front": 60.0, "web": 60.0, "waiting": 60.0, "gateway": 60.0}
LONGEST_PATIENCE = 3600.0
# After so many seconds a restart is forgotten. Before, the next one needs twice the patience.
FORGIVEN_AFTER = 3600.0
# One look counts for no more than this, however long ago the last one was.
LONGEST_LOOK = 10.0
# What has to show life for a program's silence to mean something.
NEEDS = {"beat": "redis", "host": "redis", "control": "beat", "keys": "beat"}
NEEDS |= {"web": "redis", "waiting": "redis", "gateway": "redis"}
# These wait for the database, which may be what hangs. It is asked before one of them is restarted.
USE_DATABASE = {"control", "keys", "web", "waiting", "gateway"}
# These get what the beat sends in turn, each node's.
SHARE_WORK = {"control", "keys"}
BY_REQUEST = ("front", "web", "waiting", "gateway")
TICKS = os.sysconf("SC_CLK_TCK")


class Readings(Protocol):
    """``runner.signs.Signs``."""

    own_redis: bool

    def redis(self) -> bool | None: ...
    def stored(self) -> dict[str, str] | None: ...
    def nodes(self) -> int: ...
    def answers(self, name: str) -> bool | None: ...
    def database(self) -> bool: ...


class Vigil:
    """Look by look, what hangs. ``family`` reads all processes of this installation."""

    def __init__(
        self, signs: Readings, family: Callable[[], list[Process]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._signs = signs
        self._family = family
        self._clock = clock
        self._activity = Activity()
        self._looked: float | None = None
        self._stored: dict[str, str] | None = None
        self._pids: dict[str, int] = {}
        self._silent: dict[str, float] = {}
        self._restarts: dict[str, int] = {}
        self._restarted: dict[str, float] = {}

    def hanging(self, states: Sequence[State]) -> dict[str, float]:
        """The programs to be restarted now, by supervisor's name, and for how many seconds they have been silent."""
        now = self._clock()
        passed = 0.0 if self._looked is None else min(now - self._looked, LONGEST_LOOK)
        self._looked = now
        names = {state.name.rpartition(":")[2]: state for state in states}
        alive = self._alive([name for name, state in names.items() if state.state == "RUNNING"])
        family = self._family()
        for name, state in names.items():
            busy = self._activity.busy(_descendants(state.pid, family), passed, TICKS)
            same = self._pids.get(name) == state.pid and state.state == "RUNNING"
            self._pids[name] = state.pid
            if not same or alive.get(name) is not False or alive.get(NEEDS.get(name, ""), True) is not True:
                self._silent[name] = 0.0
            elif not busy:
                self._silent[name] += passed
            if alive.get(name) and now - self._restarted.get(name, now) > FORGIVEN_AFTER:
                self._restarts.pop(name, None)
        silent = {name: self._silent[name] for name in names}
        return {names[name].name: seconds for name, seconds in silent.items() if self._must_go(name, seconds, now)}

    def _alive(self, running: list[str]) -> dict[str, bool | None]:
        """Of each program whether it showed life since the last look; None or nothing where that cannot be said."""
        alive: dict[str, bool | None] = {"redis": self._signs.redis()}
        before, self._stored = self._stored, self._signs.stored() if alive["redis"] else None
        if before is None or self._stored is None:
            # Nobody could have shown anything: what they need is not there.
            alive["redis"] = None if alive["redis"] else alive["redis"]
        else:
            for name in ("beat", "control", "keys", "host"):
                alive[name] = before.get(name) != self._stored.get(name)
        for name in BY_REQUEST:
            if name in running:
                alive[name] = self._signs.answers(name)
        return alive

    def _must_go(self, name: str, silent: float, now: float) -> bool:
        if name not in PATIENCE or (name == "redis" and not self._signs.own_redis):
            return False
        times = self._restarts.get(name, 0)
        patience = PATIENCE[name] * 2**times
        if silent >= patience and name in SHARE_WORK:
            patience *= self._signs.nodes()
        if silent < min(LONGEST_PATIENCE, patience):
            return False
        self._silent[name] = 0.0
        if name in USE_DATABASE and not self._signs.database():
            return False
        self._restarts[name], self._restarted[name] = times + 1, now
        return True


def _descendants(pid: int, family: list[Process]) -> list[int]:
    """The process and all below it."""
    found = [pid] if pid else []
    for parent in found:
        found += [process.pid for process in family if process.parent == parent]
    return found
