"""The Django side of a start (``manage.py bootstrap``), which reports each step as a line of JSON."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Callable
from typing import Any

from . import privileges
from .console import RunError
from .programs import Site, base_environment, django_environment

STEP_WITHIN = 180.0
LOG = "bootstrap.log"


class Setup:
    """A running ``manage.py bootstrap``. Its log is var/log/bootstrap.log; what it prints goes through a pipe to us
    only, for one line holds the one-time password."""

    def __init__(self, site: Site, instance: str, arguments: list[str]) -> None:
        self._log = site.var / "log" / LOG
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                privileges.wrapped("setup", [str(site.python), "manage.py", "bootstrap", *arguments]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=site.project,
                env={**base_environment(instance), **django_environment(site.var)},
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._buffer = b""

    def expect(self, event: str, meanwhile: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Wait for the report named ``event``; call ``meanwhile`` every two seconds. ``RunError`` with its own
        message when it fails instead."""
        line = self._line(time.monotonic() + STEP_WITHIN, meanwhile)
        data = json.loads(line) if line else {}
        if data.get("event") == event:
            return dict(data)
        if not line:
            self._process.wait(timeout=10)
        raise RunError(str(data.get("message") or f"Setting up the database failed: {self._last_words()}"))

    def _line(self, deadline: float, meanwhile: Callable[[], None]) -> bytes:
        """The next line, empty when the command ended."""
        assert self._process.stdout is not None  # noqa: S101 (it was made with a pipe)
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            if time.monotonic() > deadline:
                raise RunError(f"Setting up took longer than {STEP_WITHIN:.0f} seconds; see {self._log}.")
            ready, _, _ = select.select([descriptor], [], [], 2.0)
            if not ready:
                meanwhile()
                continue
            if not (chunk := os.read(descriptor, 65536)):
                return b""
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"{lines[-1] if lines else 'it said nothing'} (all of it: {self._log})"

    def close(self) -> None:
        """Wait for its end, and end it if it has more to do than anybody waits for."""
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def cleanup_host(site: Site, environment: dict[str, str]) -> str:
    """Let the host side take down every tunnel and rule of ours. Returns what went wrong, in words."""
    try:
        done = subprocess.run(
            privileges.wrapped("host", [str(site.python), "-m", "servers.hostnet", "--cleanup"]),
            cwd=site.project,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "taking down the tunnels took longer than a minute"
    return done.stderr.strip().splitlines()[-1] if done.returncode and done.stderr.strip() else ""
