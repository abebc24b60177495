"""Whoever breaks things: processes are killed or stopped, stores emptied, locked or filled."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sqlite3
import threading
from collections.abc import Callable, Sequence

import redis

from core.redis_store import redis_client
from tests.host.test_run_whole import KNOWN_BY, Installation
from vpnproject.runner import layout
from vpnproject.runner.processes import Process

from . import stepped_clock
from .far_host import FarHost, ends_of_links
from .plan import CAREFUL, Step
from .record import Record

SUPERVISOR = "/runner/supervisord.py"
LOCK_WITHIN = 5.0  # seconds to wait for the database's lock
RUNNER_STARTS = 5
# What was just killed may not be there yet again. Where most are not, this test does not know them.
MOST_MISSED = 0.5
# Seconds by which the clock may be wrong: within what clients' times may differ by.
AHEAD = (-120.0, -40.0, 0.0, 40.0, 120.0)


def main_process(ours: Sequence[Process], name: str) -> int | None:
    """The id of a program's main process, supervisor's own child. Its file of its own id may be empty: disks are filled
    here."""
    supervisor = next((each.pid for each in ours if any(word.endswith(SUPERVISOR) for word in each.command)), None)
    if name == "supervisor" or supervisor is None:
        return supervisor
    found = (p.pid for p in ours if p.parent == supervisor and any(KNOWN_BY[name] in word for word in p.command))
    return next(found, None)


class Faults:
    def __init__(self, record: Record, installation: Installation, far: FarHost) -> None:
        self._record = record
        self._installation = installation
        self._far = far
        self._database = installation.var / layout.DATABASE
        self._filler = installation.var / "filler"
        self._has_room = threading.Event()  # the disk of var
        self._has_room.set()
        self._steps: queue.Queue[Step | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="faults", daemon=True)
        self._stopped: dict[str, int] = {}  # descriptors of processes, by target
        self._ahead = 0.0
        self._hit = self._missed = 0
        self._lock: sqlite3.Connection | None = None
        self._ways: dict[str, Callable[[Step], str]] = {
            "kill": self._kill,
            "stop": self._stop,
            "continue": self._continue,
            "empty redis": self._empty_redis,
            "lock database": self._lock_database,
            "unlock database": self._unlock_database,
            "step clock": self._step_clock,
            "fill disk": self._fill_disk,
            "free disk": self._free_disk,
        }

    def start(self) -> None:
        self._thread.start()

    def do(self, step: Step) -> None:
        self._steps.put(step)

    def finish(self) -> None:
        self._steps.put(None)
        self._thread.join()
        if self._missed > MOST_MISSED * (self._missed + self._hit):
            self._record.problem(f"{self._missed} of the processes to be killed or stopped were not there")

    def _run(self) -> None:
        while (step := self._steps.get()) is not None:
            try:
                outcome = self._ways[step.action](step)
            except Exception as error:
                self._record.problem(f"fault {step.action} {step.target}: {type(error).__name__} {error}")
                outcome = "failed"
            self._record.note("fault", step.action, target=step.target, outcome=outcome)

    # Processes

    def _chosen(self, step: Step) -> int | None:
        """The id of a process that is there now, known by the mark of this installation."""
        name, _, which = step.target.partition(" ")
        if name == "runner":
            return self._installation.process.pid if self._installation.process else None
        if name == "openvpn":
            found = ends_of_links(self._installation.machine, self._far.machine)
        elif name == "far":
            found = [self._far.worker.pid]
        else:
            found = self._of_program(name, which)
        chosen = found[int(step.pick * len(found))] if found else None
        if chosen is None:
            self._missed += 1
        else:
            self._hit += 1
        return chosen

    def _of_program(self, name: str, which: str) -> list[int]:
        ours = self._installation.ours()
        main = main_process(ours, name)
        if which == "main":
            return [main] if main is not None else []
        return sorted(each.pid for each in ours if each.parent == main)

    def _kill(self, step: Step) -> str:
        if step.target == "runner main":
            self._installation.kill()
            threading.Thread(target=self._start_runner, name="runner", daemon=True).start()
            return "killed"
        pid = self._chosen(step)
        if pid is None:
            return "not there"
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if step.target == "far main":
            self._far.start_again()
        return f"killed {pid}"

    def _start_runner(self) -> None:
        """As whoever looks after the machine would: again, where it says that something is in the way. On a full disk
        it does not start."""
        for _ in range(RUNNER_STARTS):
            self._has_room.wait()
            self._installation.start()
            try:
                self._installation.started()
            except (AssertionError, TimeoutError):
                self._record.note("fault", "start bin/run", failed=self._installation.said()[-2000:])
            else:
                self._record.note("fault", "start bin/run", outcome="up")
                return
        self._record.problem(f"bin/run does not start again: {self._installation.said()[-500:]}")

    def _stop(self, step: Step) -> str:
        pid = self._chosen(step)
        try:
            handle = os.pidfd_open(pid) if pid is not None else None
        except ProcessLookupError:
            handle = None
        if handle is None:
            return "not there"
        self._stopped[step.target] = handle
        return self._signal(handle, signal.SIGSTOP) or f"stopped {pid}"

    def _continue(self, step: Step) -> str:
        handle = self._stopped.pop(step.target, None)
        if handle is None:
            return "not there"
        try:
            return self._signal(handle, signal.SIGCONT) or "goes on"
        finally:
            os.close(handle)

    def _signal(self, handle: int, number: signal.Signals) -> str:
        try:
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return "gone meanwhile"
        return ""

    # Stores

    def _empty_redis(self, step: Step) -> str:
        # By a thread of its own: a Redis that is stopped answers nobody, and would not be told to go on.
        threading.Thread(target=self._flush, name="flush", daemon=True).start()
        return "asked"

    def _flush(self) -> None:
        try:
            redis_client().flushall()
        except redis.RedisError as error:
            self._record.note("fault", "emptied redis", failed=type(error).__name__)
        else:
            self._record.note("fault", "emptied redis")

    def _lock_database(self, step: Step) -> str:
        """Somebody else's transaction, of a backup or a person's shell."""
        self._lock = sqlite3.connect(self._database, timeout=LOCK_WITHIN, isolation_level=None, check_same_thread=False)
        try:
            self._lock.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            return str(error)
        return "locked"

    def _unlock_database(self, step: Step) -> str:
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        return "unlocked"

    # The machine

    def _step_clock(self, step: Step) -> str:
        others = [ahead for ahead in AHEAD if ahead != self._ahead]
        before, self._ahead = self._ahead, others[int(step.pick * len(others))]
        for name in CAREFUL:
            self._record.concern(name, "step clock")
        self._record.clock_steps += abs(self._ahead - before)
        stepped_clock.set_ahead(self._installation.var.parent / "clock", self._ahead)
        return f"set by {self._ahead - before:+} s, {self._ahead:+} s from the right time"

    def _fill_disk(self, step: Step) -> str:
        self._has_room.clear()
        filled = 0
        with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while True:
                filled += file.write(bytes(1 << 16))
        return f"{filled >> 20} MB written"

    def _free_disk(self, step: Step) -> str:
        self._filler.unlink(missing_ok=True)
        self._has_room.set()
        return "freed"
