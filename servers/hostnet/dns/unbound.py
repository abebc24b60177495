"""One unbound for one server: its process, its files, and how those of an earlier run are found and ended.

Debian's AppArmor profile leaves unbound two places, and each is good for one thing. The configuration is in
``/etc/unbound``, where only root writes: unbound starts as root, so who could exchange its configuration would be
root. The control socket is in ``/var/lib/unbound``, in a directory that only root enters, because it takes orders
from whoever reaches it. Unbound gives up root by itself once it has port 53.

The processes live in sessions of their own, like the tunnels: names outlive our worker, until its successor replaces
them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from servers.hostnet import processes

from . import control
from .control import DnsError

log = logging.getLogger("hostnet.unbound")

PROGRAM = Path("/usr/sbin/unbound")
CONFIGURATIONS = Path("/etc/unbound/vpn")
SOCKETS = Path("/var/lib/unbound/vpn")
START_WITHIN = 10.0  # seconds; it takes about 0.05
RECENT = 90.0  # seconds for which a certificate that failed is a trouble to report
_PREFIX = re.compile(r"(\[\d+\] unbound\[[\d:]+\] )?((fatal )?error: )?")
_ALL_IS_WELL = ("info:", "notice:", "debug:")


def configuration_path(interface: str) -> Path:
    return CONFIGURATIONS / f"{interface}.conf"


def socket_path(interface: str) -> Path:
    return SOCKETS / f"{interface}.ctl"


class Unbound:
    """A running unbound, made by ``start``. What it says goes to our log."""

    def __init__(self, interface: str, process: subprocess.Popen[bytes]) -> None:
        self.interface = interface
        self.socket = socket_path(interface)
        self._process = process
        self._said: list[str] = []  # each of its complaints once, the latest last
        self._distrusted = float("-inf")  # when a certificate failed

    @property
    def alive(self) -> bool:
        self._listen()
        return self._process.poll() is None

    @property
    def last_words(self) -> str:
        self._listen()
        return "; ".join(self._said[-2:]) or "it said nothing"

    @property
    def complaint(self) -> str:
        """What clients suffer from although it runs, in words, or empty."""
        recent = time.monotonic() - self._distrusted < RECENT
        return "the DNS servers' TLS certificate is not good for them" if recent else ""

    def _listen(self) -> None:
        """Read what it said since, so that it never waits for us."""
        assert self._process.stderr is not None  # noqa: S101 (it was made with a pipe)
        with contextlib.suppress(BlockingIOError):
            while said := os.read(self._process.stderr.fileno(), 65536):
                for line in said.decode(errors="replace").splitlines():
                    self._note(line)

    def _note(self, line: str) -> None:
        """Log a complaint, but not for every single query again."""
        message = _PREFIX.sub("", line)
        if message.startswith(_ALL_IS_WELL):
            return
        if "certificate verify failed" in message:
            self._distrusted = time.monotonic()
        if message in self._said:
            self._said.remove(message)
        else:
            log.warning("%s: unbound: %s", self.interface, message)
        self._said = [*self._said[-9:], message]

    def end(self) -> None:
        if self._process.poll() is None:
            processes.end(self._process.pid)
            with contextlib.suppress(subprocess.TimeoutExpired):  # killed, but the kernel is not done with it
                self._process.wait(processes.END_WITHIN)
        if self._process.stderr is not None:
            self._process.stderr.close()


def start(interface: str, configuration: str) -> Unbound:
    """Start it with no names, in the place of one that an earlier run left; return when it takes orders."""
    if not PROGRAM.exists():
        raise DnsError("unbound is not installed")
    end_left(interface)
    try:
        _write(interface, configuration)
        process = subprocess.Popen(
            [PROGRAM, "-d", "-c", configuration_path(interface)],
            # Only what it needs: our own environment holds the way to Redis, password included.
            env={"PATH": os.environ.get("PATH", os.defpath)},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a signal to our process group must not end it
        )
    except OSError as error:
        raise DnsError(f"unbound cannot be started: {error.strerror} ({error.filename})") from None
    assert process.stderr is not None  # noqa: S101 (it was made with a pipe)
    os.set_blocking(process.stderr.fileno(), False)
    unbound = Unbound(interface, process)
    try:
        _wait_until_ready(unbound)
    except DnsError:
        unbound.end()
        raise
    return unbound


def _wait_until_ready(unbound: Unbound) -> None:
    deadline = time.monotonic() + START_WITHIN
    while not control.reachable(unbound.socket):
        if not unbound.alive:
            raise DnsError(f"unbound did not start: {unbound.last_words}")
        if time.monotonic() > deadline:
            raise DnsError(f"unbound did not start within {START_WITHIN:.0f} s: {unbound.last_words}")
        time.sleep(0.01)


def make_directories() -> None:
    """For a worker that is root without all of root's rights: the directory above the sockets is the user unbound's."""
    for directory in (CONFIGURATIONS, SOCKETS):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def _write(interface: str, configuration: str) -> None:
    make_directories()
    for directory in (CONFIGURATIONS, SOCKETS):
        # The user unbound owns the directory above the sockets, and could have put anything there in our place.
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise DnsError(f"{directory} is not a directory of ours")
    socket_path(interface).unlink(missing_ok=True)
    path = configuration_path(interface)
    path.write_text(configuration)


# Those of an earlier run


def end_left(interface: str) -> None:
    """End what serves ``interface`` and is not, or no longer, a child of ours that we know."""
    for pid, name, here in _running():
        if name == interface:
            if not here:
                raise DnsError(f"{interface} has an unbound in another network namespace")
            processes.end(pid)


def remove(interface: str) -> None:
    """End it, whoever started it, and remove its files. Raises ``DnsError``."""
    end_left(interface)
    for path in (configuration_path(interface), socket_path(interface)):
        path.unlink(missing_ok=True)


def left() -> set[str]:
    """Interfaces in this network namespace for which an unbound of ours runs."""
    return {name for _, name, here in _running() if here}


def cleanup() -> list[str]:
    """End all of ours and remove what they needed; return what could not be removed, in words."""
    errors = []
    for name in left() | {path.stem for path in CONFIGURATIONS.glob("*.conf")}:
        try:
            remove(name)
        except (DnsError, OSError) as error:
            errors.append(str(error))
    remove_directories()
    return errors


def remove_directories() -> None:
    for directory in (CONFIGURATIONS, SOCKETS):
        with contextlib.suppress(OSError):  # not there, or not empty, or we may not
            directory.rmdir()


def _running() -> Iterator[tuple[int, str, bool]]:
    """Every unbound that listens on a control socket of ours: its pid, the interface, and whether it is in our network.

    They are found by who listens and not by a pid file, which may be old: nobody else's is ever ended. Nor are they
    looked up in ``/proc/PID/ns``: an unbound has become a user of its own, and only who may look into every process of
    the machine may look there.
    """
    here = _sockets_here()
    for path in SOCKETS.glob("*.ctl"):
        pid = control.listener(path)
        with contextlib.suppress(OSError):  # nobody listens, or it has just ended
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if arguments[:4] == [bytes(PROGRAM), b"-d", b"-c", os.fsencode(configuration_path(path.stem))]:
                yield pid, path.stem, os.fspath(path) in here


def _sockets_here() -> set[str]:
    """The paths of the unix sockets that were made in this network namespace."""
    lines = Path("/proc/self/net/unix").read_text(errors="replace").splitlines()[1:]
    return {fields[7] for line in lines if len(fields := line.split(maxsplit=7)) == 8}
