"""bin/run on a machine of its own, without what it installs before that."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

from bench.load import WrongAnswer
from tests.lab import HANGING, PROJECT, PYTHON, Machine, until

UP = "Ctrl-C stops everything"


class Run:
    """One ``var`` on ``machine``, and the runs on it."""

    def __init__(self, machine: Machine, var: Path) -> None:
        self._machine = machine
        self._var = var
        self._log = var.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it and wait until it says that all is up; the seconds that took."""
        self._log.write_bytes(b"")
        began = time.perf_counter()
        command = (PYTHON, "-m", "runner", "--var", self._var)
        self._process = self._machine.start(*command, env={"PYTHONPATH": str(PROJECT / "vpnproject")}, log=self._log)
        until(self._is_up_or_gone)
        took = time.perf_counter() - began
        if UP not in self.said():
            raise WrongAnswer(f"bin/run did not start: {self.said()}")
        return took

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        if self._process.wait(HANGING):
            raise WrongAnswer(f"bin/run did not stop as it should: {self.said()}")

    def said(self) -> str:
        return self._log.read_text()

    def _is_up_or_gone(self) -> bool:
        assert self._process is not None
        return UP in self.said() or self._process.poll() is not None
