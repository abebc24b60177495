"""While the server runs: say what supervisor restarts, end what a killed program left, replace supervisor itself."""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from core import disks, web_certificate

from . import processes
from .certificate import Pair
from .console import Progress, RunError
from .following import Following
from .supervise import State, Supervisor, Unreachable
from .vigil import Vigil

LOOK_EVERY = 5.0
# Seconds between two looks at how long the certificate is still good.
VALIDITY_EVERY = 3600.0
# More deaths of supervisor than this within the time are no accident: then it is started after a pause.
MOST_DEATHS, DEATHS_WITHIN = 3, 600.0
# Directories in var that may be on disks of their own.
KEPT = ("database", "redis", "log")
# Questions in a row that supervisor leaves unanswered, each for a minute, until it is taken to hang.
MOST_UNANSWERED = 3
GIVEN_UP = ("FATAL", "EXITED", "UNKNOWN")
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 60.0


def pause(times: int) -> float:
    """Seconds to wait before the next try of what has failed ``times`` times in a row."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(times - 1, 10)) if times > 0 else 0.0


class Watch:
    """Looks after ``supervisor``. Whatever fails is said and tried again: tunnels are up, and only somebody's wish for
    the end, a signal's handler that raises, may take them down."""

    def __init__(
        self,
        supervisor: Supervisor,
        instance: str,
        progress: Progress,
        pair: Pair,
        var: Path,
        vigil: Vigil,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        today: Callable[[], datetime] = lambda: datetime.now(UTC),
        following: Following | None = None,
    ) -> None:
        self._supervisor = supervisor
        self._instance = instance
        self._progress = progress
        self._pair = pair
        self._vigil = vigil
        self._clock = clock
        self._today = today
        self._validity_due = clock()
        self._certificate_said = ""
        self._front_untold = self._mesh_untold = False
        self._following = following
        self._last: dict[str, State] = {}
        self._suspects: set[processes.Process] = set()
        self._sleep = sleep
        self._deaths: list[float] = []
        self._unanswered = 0
        self._failed = ""
        self._directories = [var, *(var / name for name in KEPT)]
        self._disks: set[str] = set()
        # By name of what supervisor has given up: how often it was tried again, and when that is due next.
        self._given_up: dict[str, tuple[int, float]] = {}

    def forever(self) -> None:
        while True:
            self.turn()

    def turn(self) -> None:
        """Wait a while and look, or replace a supervisor that died."""
        try:
            if self._wait(LOOK_EVERY):
                self.look()
                self._restart_what_hangs()
            else:
                self._replace_supervisor()
        except Exception as error:
            # Whatever it is, a fault of ours included: without us all goes on, and nobody is helped by our end.
            words = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
            if words != self._failed:
                self._progress.fail(f"{words} Tunnels stay as they are; this is tried again.")
            self._failed = words
            self._sleep(FIRST_PAUSE)
        else:
            self._failed = ""

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
        self._say_disks()
        try:
            states = {state.name: state for state in self._supervisor.states()}
        except Unreachable as error:
            self._unanswered = self._unanswered + 1 if isinstance(error, TimeoutError) else 0
            if self._unanswered >= MOST_UNANSWERED and self._supervisor.process is not None:
                self._progress.warn("supervisor hangs; it is ended.")
                processes.end([self._supervisor.process], self._instance, grace=0)
            return  # busy or just dying; the next round tells
        self._unanswered = 0
        for name, state in states.items():
            self._compare(self._last.get(name), state)
        self._last = states
        self._keep_certificate()
        if self._following is not None:
            self._follow_mesh(self._following)
        self._end_strays(spared)

    def _keep_certificate(self) -> None:
        """Renew it in time, have a new one served, and say where one is not good for much longer."""
        changed = self._pair.renewed()
        if changed or self._clock() >= self._validity_due:
            self._validity_due = self._clock() + VALIDITY_EVERY
            changed = self._renew_in_time() or changed
            words = web_certificate.warning(self._pair.certificate, self._today())
            if words and words != self._certificate_said:
                self._progress.warn(words)
            self._certificate_said = words
        if changed:
            self._serve_renewed()

    def _renew_in_time(self) -> bool:
        try:
            return self._pair.renew_in_time(self._today()) and self._pair.renewed()
        except OSError as error:  # a disk that takes nothing; the first page of the admin says so in time, too
            self._progress.warn(f"The certificate could not be renewed ({error.strerror}); this is tried again.")
            return False

    def _serve_renewed(self) -> None:
        """Have the front read a renewed certificate. Connections go on; were it wrong, the front keeps the old one."""
        try:
            self._supervisor.reload_front()
        except Unreachable:
            if not self._front_untold:
                self._progress.warn("The certificate was renewed, and the front could not be told: tried again.")
            self._front_untold = True
            self._pair.again()
        else:
            self._front_untold = False
            self._progress.good("The certificate was renewed; new connections get it")

    def _follow_mesh(self, following: Following) -> None:
        """Have the front know the mesh's networks as they are now. Connections go on."""
        try:
            if not following.changed():
                return
            self._supervisor.reload_front()
        except Unreachable:  # or a disk that takes nothing
            if not self._mesh_untold:
                self._progress.warn("The mesh has another network, and the front could not be told: tried again.")
            self._mesh_untold = True
            following.again()
        else:
            self._mesh_untold = False
            self._progress.good("The front was told of the mesh's network as it is now")

    def _say_disks(self) -> None:
        """What a disk that fails does to the programs is seen in many places, and its cause in none of them."""
        failing = {re.sub(r" \(.*\)", "", fault) for fault in disks.faults(self._directories)}
        for fault in sorted(failing - self._disks):
            self._progress.warn(f"{fault} Tunnels go on; all else does once it takes files again.")
        for fault in sorted(self._disks - failing):
            self._progress.good(f"No more so: {fault}")
        self._disks = failing

    def _restart_what_hangs(self) -> None:
        for full_name, seconds in self._vigil.hanging([*self._last.values()]).items():
            name = full_name.rpartition(":")[2]
            self._progress.warn(f"{name} has shown no sign of life for {seconds:.0f} s; it is started anew.")
            with suppress(*Unreachable):
                self._supervisor.kill_program(full_name)
            self._last.pop(full_name, None)  # its new process is no news

    def _compare(self, before: State | None, now: State) -> None:
        name = now.name.rpartition(":")[2]
        if now.state == "RUNNING":
            self._given_up.pop(now.name, None)
        if now.state in GIVEN_UP:
            self._try_again(name, now)
        elif before is not None and before.pid and now.pid and before.pid != now.pid:
            self._progress.warn(f"{name} had ended and was started again. See var/log/{name}.log.")

    def _try_again(self, name: str, now: State) -> None:
        tried, due = self._given_up.get(now.name, (0, 0.0))
        if not tried:
            self._progress.warn(f"{name} does not stay up ({now.words}); tried again. See var/log/{name}.log.")
        if self._clock() < due:
            return
        self._given_up[now.name] = tried + 1, self._clock() + pause(tried + 1)
        with suppress(*Unreachable):
            self._supervisor.start_program(now.name)

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
        wait = pause(len(self._deaths) - MOST_DEATHS)
        when = f" in {wait:.0f} s; see var/log/supervisord.log" if wait else ""
        self._progress.warn(f"supervisor died; everything but the tunnels is started anew{when}.")
        self._sleep(wait)
        processes.end(processes.strays(processes.marked(self._instance), roots=[]), self._instance, grace=10)
        self._supervisor.start()
        self._last, self._unanswered = {}, 0
