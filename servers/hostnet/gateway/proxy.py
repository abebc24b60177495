"""The one nginx of a host: its files, its process, and how that of an earlier run is found and taken over.

It runs in a session of its own, like the tunnels, and goes on when our worker ends: pings are answered while a host is
upgraded. It is a user without rights from its first instruction on, so it reads what root wrote and writes only into
``own``.
"""

from __future__ import annotations

import contextlib
import grp
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from servers.hostnet import processes
from servers.hostnet.dns import control

PROGRAM = Path("/usr/sbin/nginx")
HOMES = Path("/run/vpn-gateway")
USER = "www-data"  # Debian's own for web servers, which has nothing here
AS_USER = (
    *("setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", "--no-new-privs"),
    *("--inh-caps", "-all", "--ambient-caps", "-all"),
)
START_WITHIN = 10.0  # seconds; it takes about 0.05


class GatewayError(Exception):
    """It cannot be started, in words."""


class Proxy:
    """Of one host: ``home`` is its directory."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._file, self._own = home / "nginx.conf", home / "own"
        self._socket = self._own / "http.sock"

    def running(self) -> int:
        """The pid of its master, whoever started it; 0 where there is none.

        Found by who listens on the socket that is ours, and not by a pid file, which may be old.
        """
        pid = control.listener(self._socket)
        with contextlib.suppress(OSError):
            if pid and str(self._file).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return 0

    def _orphans(self) -> list[int]:
        """The pids of nginx that serve on without their master, which was killed; none where it lives.

        They hold its ports and answer by an old file for ever. They are of the session that it began, whose number the
        kernel gives to no other process as long as one of them lives.
        """
        master = control.listener(self._socket)
        if not master or self.running():
            return []
        return [int(process.name) for process in Path("/proc").glob("[0-9]*") if _is_nginx_of(process, master)]

    def run(self, text: str) -> None:
        """Have it run with this configuration: one that runs reads it anew, and drops nothing meanwhile. Raise
        ``GatewayError``."""
        if not PROGRAM.exists():
            raise GatewayError("nginx is not installed")
        try:
            same = self._file.exists() and self._file.read_text() == text
            if pid := self.running():
                if not same:
                    self._file.write_text(text)
                    os.kill(pid, signal.SIGHUP)
                return
            self._end_all()
            self._make_home(text)
            self._start()
        except OSError as error:
            raise GatewayError(f"nginx cannot be started: {error.strerror} ({error.filename})") from None

    def _make_home(self, text: str) -> None:
        for directory in (HOMES, self.home):
            directory.mkdir(mode=0o755, exist_ok=True)
            directory.chmod(0o755)
        self._file.write_text(text)
        self._file.chmod(0o644)
        self._own.mkdir(mode=0o700, exist_ok=True)
        # Our worker is root without the right to give files away; but to a group that one is in one may.
        gid = grp.getgrnam(USER).gr_gid
        subprocess.run(["chgrp", str(gid), self._own], check=True, extra_groups=[gid], capture_output=True, timeout=10)
        self._own.chmod(0o770)
        self._socket.unlink(missing_ok=True)

    def _start(self) -> None:
        process = subprocess.Popen(
            [*AS_USER, PROGRAM, "-e", "stderr", "-p", self.home, "-c", self._file],
            # Only what it needs: our own environment holds the way to Redis, password included.
            env={"PATH": os.environ.get("PATH", os.defpath)},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a signal to our process group must not end it
        )
        until = time.monotonic() + START_WITHIN
        while not self.running():
            if process.poll() is not None:
                raise GatewayError("nginx did not start: is its port taken, or its stream module missing?")
            if time.monotonic() > until:
                raise GatewayError(f"nginx did not start within {START_WITHIN:.0f} s")
            time.sleep(0.01)

    def remove(self) -> None:
        """End it, whoever started it, and remove its files."""
        self._end_all()
        # What it made for itself not even root enters without the right to pass over modes.
        subprocess.run([*AS_USER, "find", self._own, "-mindepth", "1", "-delete"], check=False, capture_output=True)
        shutil.rmtree(self.home, ignore_errors=True)
        with contextlib.suppress(OSError):  # another host's is in it
            HOMES.rmdir()

    def _end_all(self) -> None:
        for pid in filter(None, [self.running(), *self._orphans()]):
            processes.end(pid)

    def is_elsewhere(self) -> bool:
        """Whether it runs in another network namespace."""
        # Read before it is asked: its end of our own connection would be listed here.
        here = Path("/proc/self/net/unix").read_text(errors="replace")
        return str(self._socket) not in here and bool(self.running() or self._orphans())


def cleanup() -> None:
    """Remove all of ours in this network namespace."""
    for home in HOMES.glob("*"):
        if not (proxy := Proxy(home)).is_elsewhere():
            proxy.remove()


def _is_nginx_of(process: Path, session: int) -> bool:
    """Whether it is an nginx of that session; ``process`` is its directory in ``/proc``."""
    with contextlib.suppress(OSError):  # it has just ended
        # Its name stands in brackets and may hold anything but is nginx's; the session is the fourth field after it.
        name, _, fields = (process / "stat").read_text(errors="replace").rpartition(")")
        return name.endswith("(nginx") and int(fields.split()[3]) == session
    return False
