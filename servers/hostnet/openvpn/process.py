"""One openvpn for one end of a link: its process, its files, and how one of an earlier run is found.

It is started as root without any of root's rights but to become somebody else: so it reads the file with the keys
(0600, in a directory that only root enters) and takes the interface, which is root's, and is nobody before it says a
word to anybody. Without that limit openvpn would keep the right to change the network for good.

Its management socket is in the same directory; there it says how it is, and it is found by who listens there, not by a
number in a file that may be old.

Processes live in sessions of their own, as the tunnels do: a link outlives our worker, and the next one takes it over
where its configuration is still the desired one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from servers.hostnet import processes
from servers.hostnet.dns import control
from servers.hostnet.state import LINK_INTERFACE

PROGRAM = Path("/usr/sbin/openvpn")
LEFT = "-all,+setuid,+setgid"
LIMIT = ("--inh-caps=-all", "--ambient-caps=-all", f"--bounding-set={LEFT}", "--no-new-privs")
START_WITHIN = 10.0  # seconds; it takes about 0.05
ANSWERS_WITHIN = 5.0  # seconds; it takes milliseconds
LONGEST_LOG = 1 << 18  # bytes
CONNECTED = "CONNECTED"


class OpenVpnError(Exception):
    """An end could not be started or ended. The text is for an administrator, and holds no key."""


class Ends:
    """Those of this host, with their files in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def socket(self, device: str) -> Path:
        return self._directory / f"{device}.sock"

    def _configuration(self, device: str) -> Path:
        return self._directory / f"{device}.conf"

    def _log(self, device: str) -> Path:
        return self._directory / f"{device}.log"

    def _command(self, device: str) -> list[str]:
        return [str(PROGRAM), "--config", str(self._configuration(device))]

    # How they are

    def running(self, device: str) -> int:
        """The pid of its process; 0 where none runs."""
        child = self._children.get(device)
        if child is not None and child.poll() is not None:
            del self._children[device]  # and it is no zombie any more
        pid = control.listener(self.socket(device))
        with contextlib.suppress(OSError):
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if pid and arguments[:-1] == [os.fsencode(word) for word in self._command(device)]:
                return pid
        return 0

    def runs_with(self, device: str, configuration: str) -> bool:
        """Whether it runs, and was started with this very configuration."""
        try:
            written = self._configuration(device).read_text()
        except OSError:
            return False
        return written == configuration and self.running(device) != 0

    def state(self, device: str) -> str:
        """What openvpn says it is doing, in its own word (``CONNECTED``, ``WAIT``, ``AUTH``, …); empty where it does
        not answer."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
                asked.settimeout(ANSWERS_WITHIN)
                asked.connect(str(self.socket(device)))
                asked.sendall(b"state\n")
                return _state_in(_lines(asked))
        except OSError:
            return ""

    def last_words(self, device: str) -> str:
        """The end of what its process said. What is wrong in a configuration is said three lines before its end."""
        try:
            said = self._log(device).read_text(errors="replace").splitlines()
        except OSError:
            said = []
        return "; ".join(said[-4:])[-500:] or "it said nothing"

    def keep_short(self, device: str) -> None:
        """Begin its log anew where it is long: an end that finds nobody says so every few seconds."""
        with contextlib.suppress(OSError):
            if self._log(device).stat().st_size > LONGEST_LOG:
                os.truncate(self._log(device), 0)  # it appends

    # What is done to them

    def start(self, device: str, configuration: str) -> None:
        """Start it anew, in the place of one that runs; return once it answers. Raise ``OpenVpnError``."""
        if not PROGRAM.exists():
            raise OpenVpnError("openvpn is not installed")
        self.end(device)
        try:
            self._write(device, configuration)
            with self._log(device).open("ab") as log:
                process = subprocess.Popen(
                    ["setpriv", *LIMIT, *self._command(device)],
                    # Only what it needs: our own environment holds the way to Redis, password included.
                    env={"PATH": os.environ.get("PATH", os.defpath)},
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # a signal to our process group must not end it
                )
        except OSError as error:
            raise OpenVpnError(f"openvpn cannot be started: {error.strerror} ({error.filename})") from None
        self._children[device] = process
        deadline = time.monotonic() + START_WITHIN
        while not self.running(device):
            if process.poll() is not None:
                raise OpenVpnError(f"openvpn did not start: {self.last_words(device)}")
            if time.monotonic() > deadline:
                self._end_child(device)
                raise OpenVpnError(f"openvpn did not start within {START_WITHIN:.0f} s: {self.last_words(device)}")
            time.sleep(0.01)

    def _write(self, device: str, configuration: str) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self._directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise OpenVpnError(f"{self._directory} is not a directory of ours alone")
        self.socket(device).unlink(missing_ok=True)
        path = self._configuration(device)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(configuration)

    def _end_child(self, device: str) -> None:
        if (child := self._children.pop(device, None)) is not None and child.poll() is None:
            processes.end(child.pid)
            with contextlib.suppress(subprocess.TimeoutExpired):  # killed, but the kernel is not done with it
                child.wait(processes.END_WITHIN)

    def end(self, device: str) -> None:
        """End it, whoever started it, and remove its files, keys included."""
        if pid := self.running(device):
            processes.end(pid)
        self._end_child(device)
        for path in (self._configuration(device), self.socket(device), self._log(device)):
            path.unlink(missing_ok=True)

    def left(self) -> set[str]:
        """The devices of all of which there are files."""
        names = {path.stem for path in self._directory.glob("*.*")}
        return {name for name in names if LINK_INTERFACE.fullmatch(name)}


def _lines(asked: socket.socket) -> Iterator[str]:
    rest = b""
    while chunk := asked.recv(65536):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace").strip() for line in lines)


def _state_in(lines: Iterator[str]) -> str:
    """An answer to ``state`` is a line with time, state and more between commas, and then END."""
    for line in lines:
        if line.startswith(">"):
            continue  # what it tells everybody who connects
        fields = line.split(",")
        return fields[1] if len(fields) > 2 else ""
    return ""
