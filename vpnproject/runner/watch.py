"""While the server runs: say what supervisor restarts, end what a killed program left, replace supervisor itself."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterable

from . import processes
from .certificate import Pair
from .console import Progress, RunError
from .supervise import State, Supervisor, Unreachable

LOOK_EVERY = 5.0
# More deaths of supervisor than this within the time are no accident.
MOST_DEATHS, DEATHS_WITHIN = 3, 600.0
GIVEN_UP = ("FATAL", "EXITED", "UNKNOWN")


class Watch:
    """Looks after ``supervisor`` until something raises, a signal's handler for example."""

    def __init__(
        self,
        supervisor: Supervisor,
        instance: str,
        progress: Progress,
        pair: Pair,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._supervisor = supervisor
        self._instance = instance
        self._progress = progress
        self._pair = pair
        self._clock = clock
        self._last: dict[str, State] = {}
        self._suspects: set[processes.Process] = set()
        self._deaths: list[float] = []

    def forever(self) -> None:
        while True:
            if self._wait(LOOK_EVERY):
                self.look()
            else:
                self._replace_supervisor()

    def _wait(self, seconds: float) -> bool:
        """Wait, at most until supervisor dies. Whether it lives."""
        process = self._supervisor.process
        if process is None or not self._supervisor.alive():
            return False
        handle = os.pidfd_open(process.pid)
        try:
            select.select([handle], [], [], seconds)
        finally:
            os.close(handle)
        return self._supervisor.alive()

    def look(self, spared: Iterable[int] = ()) -> None:
        """One look at all programs and processes. ``spared`` are processes that are ours but not supervisor's."""
        try:
            states = {state.name: state for state in self._supervisor.states()}
        except Unreachable:
            return  # busy or just dying; the next round tells
        for name, state in states.items():
            self._compare(self._last.get(name), state)
        self._last = states
        self._serve_renewed()
        self._end_strays(spared)

    def _serve_renewed(self) -> None:
        """Have the front read a renewed certificate. Connections go on; were it wrong, the front keeps the old one."""
        if not self._pair.renewed():
            return
        try:
            self._supervisor.reload_front()
        except Unreachable:
            self._progress.warn("The certificate was renewed, and the front could not be told: start bin/run anew.")
        else:
            self._progress.good("The certificate was renewed; new connections get it")

    def _compare(self, before: State | None, now: State) -> None:
        name = now.name.rpartition(":")[2]
        if now.state in GIVEN_UP:
            if before is None or before.state not in GIVEN_UP:
                self._progress.warn(f"{name} does not stay up ({now.words}); tried again. See var/log/{name}.log.")
            try:
                self._supervisor.start_program(now.name)
            except Unreachable:
                return
        elif before is not None and before.pid and now.pid and before.pid != now.pid:
            self._progress.warn(f"{name} had ended and was started again. See var/log/{name}.log.")

    def _end_strays(self, spared: Iterable[int]) -> None:
        """End what a killed program left. Only what two looks in a row found: the list of processes is not read in one
        instant, so a process that is just being started can look like an orphan once."""
        process = self._supervisor.process
        if process is None:
            return
        strays = set(processes.strays(processes.marked(self._instance), [process.pid, *spared]))
        left = strays & self._suspects
        self._suspects = strays - left
        if left:
            processes.end(left, self._instance, grace=5)

    def _replace_supervisor(self) -> None:
        now = self._clock()
        self._deaths = [*(moment for moment in self._deaths if now - moment < DEATHS_WITHIN), now]
        if len(self._deaths) > MOST_DEATHS:
            raise RunError("supervisor dies again and again; see var/log/supervisord.log.")
        self._progress.warn("supervisor died; everything but the tunnels is started anew.")
        processes.end(processes.strays(processes.marked(self._instance), roots=[]), self._instance, grace=10)
        self._supervisor.start()
        self._last = {}
