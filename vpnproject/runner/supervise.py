"""Starting supervisor, finding the one that an earlier run left, and telling it what to run."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import processes
from .console import RunError
from .programs import GROUP

START_WITHIN = 60.0  # seconds; it takes about one
# Each program has ten seconds to end, all at the same time, and Redis ten after them.
STOP_WITHIN = 30.0
# For one answer. The longest is that a group's programs have ended, which takes them ten seconds at most.
ANSWER_WITHIN = 60.0
Unreachable = (OSError, http.client.HTTPException, xmlrpc.client.Error)
ENTRY = Path(__file__).with_name("supervisord.py")


@dataclass(frozen=True, slots=True)
class State:
    """One program as supervisor sees it. ``name`` is ``group:name`` or a plain one; ``pid`` 0 while it is down."""

    name: str
    state: str
    pid: int
    words: str


class Supervisor:
    """The supervisor of one ``var``: a process that outlives ``bin/run``, should that be killed."""

    def __init__(self, var: Path, project: Path, environment: dict[str, str], instance: str) -> None:
        self._var = var
        self._project = project
        self._environment = environment
        self._instance = instance
        self._configuration = var / "supervisord.conf"
        self.process: processes.Process | None = None
        self._child: subprocess.Popen[bytes] | None = None

    def find(self) -> bool:
        """Take over the supervisor that an earlier run left, if one answers. Whether there is one."""
        # Asked, and not read from its file: that is empty if the disk was full when it started.
        try:
            call = self._call()
            pid, state = int(call.getPID()), str(call.getState()["statename"])
        except Unreachable:
            return False
        found = processes.find(pid, self._instance)
        if found is None or str(ENTRY) not in found.command or state != "RUNNING":
            return False
        self.process = found
        return True

    def start(self) -> None:
        """Start it with the configuration written before. It is in a session of its own: Ctrl-C at the terminal is for
        bin/run alone, which then stops everything in order."""
        log = self._open_log()
        try:
            self._child = subprocess.Popen(
                # -P: what lies beside it is not to be imported in the place of a library.
                [sys.executable, "-P", str(ENTRY), "-c", str(self._configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._project,
                env=self._environment,
                start_new_session=True,
            )
        finally:
            os.close(log)
        until(lambda: self._state() == "RUNNING" or self._child_ended(), START_WITHIN, "supervisor did not start")
        self.process = processes.find(self._child.pid, self._instance)
        if self.process is None:
            raise RunError(f"supervisor ended at once: {self._last_words()}")

    def _open_log(self) -> int:
        try:
            return os.open(self._var / "log" / "supervisord.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        except OSError:  # a disk that takes no files
            return os.open(os.devnull, os.O_WRONLY)

    def _last_words(self) -> str:
        try:
            said = (self._var / "log" / "supervisord.out").read_text().strip().splitlines()
        except OSError as error:
            return f"what it said cannot be read ({error.strerror})"
        return said[-1] if said else "it said nothing"

    def _child_ended(self) -> bool:
        return self._child is not None and self._child.poll() is not None

    def alive(self) -> bool:
        return self.process is not None and processes.find(self.process.pid, self._instance) == self.process

    def update(self) -> None:
        """Make it run what the configuration says now: start what is new, end what is gone, renew what changed. What
        did not change goes on undisturbed."""
        call = self._call()
        added, changed, removed = call.reloadConfig()[0]
        for name in [*changed, *removed]:
            call.stopProcessGroup(name)
            call.removeProcessGroup(name)
        for name in [*changed, *added]:
            call.addProcessGroup(name)

    def states(self) -> list[State]:
        """Every program; ``Unreachable`` when supervisor does not answer."""
        rows = self._call().getAllProcessInfo()
        return [
            State(
                name=row["name"] if row["name"] == row["group"] else f"{row['group']}:{row['name']}",
                state=row["statename"],
                pid=row["pid"],
                words=row["spawnerr"] or row["description"],
            )
            for row in rows
        ]

    def start_program(self, name: str) -> None:
        self._call().startProcess(name, False)

    def kill_program(self, name: str) -> None:
        """Have it started anew. One that hangs would not hear a polite word."""
        self._call().signalProcess(name, "KILL")

    def reload_front(self) -> None:
        """Make the front read its configuration and certificate anew, without an end to any connection."""
        self._call().signalProcess(f"{GROUP}:front", "HUP")

    def stop(self) -> bool:
        """End it and all its programs, in order. Returns whether all ended by themselves."""
        if self.process is None:
            return True
        ended = processes.end([self.process], self._instance, STOP_WITHIN)
        if self._child is not None:
            self._child.wait()
        self.process = None
        return ended > 0

    def _state(self) -> str:
        try:
            return str(self._call().getState()["statename"])
        except Unreachable:
            return ""

    def _call(self) -> Any:
        transport = _Transport(self._var / "supervisor.sock")
        return xmlrpc.client.ServerProxy("http://localhost", transport=transport).supervisor


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: object) -> http.client.HTTPConnection:
        return _Connection(self._path)


class _Connection(http.client.HTTPConnection):
    """To a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_WITHIN)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ANSWER_WITHIN)
        self.sock.connect(str(self._path))


def until(condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """Look until ``condition()`` holds; ``RunError(otherwise)`` when it does not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RunError(f"{otherwise} within {seconds:.0f} seconds.")
        time.sleep(0.05)
