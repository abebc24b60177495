"""The processes of one installation, recognised by a mark in their environment and never by name or id alone.

Everything that ``bin/run`` starts carries ``VPN_INSTANCE=<random id in var/instance>`` and hands it down. A process id
found in a file, or a name, could be anybody's by now; the mark is ours for as long as the process lives. (The front's
processes lose it, and are known by the directory that they are in.)
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from . import front

MARK = "VPN_INSTANCE"


@dataclass(frozen=True, slots=True)
class Process:
    """A live process: its id, its parent's, and when it started (clock ticks since boot), which tells a reused id."""

    pid: int
    parent: int
    started: int
    command: tuple[str, ...]

    @property
    def is_tunnel(self) -> bool:
        """Whether it carries a WireGuard interface. The host worker alone starts and ends these."""
        return bool(self.command) and os.path.basename(self.command[0]) == "wireguard-go"


def marked(instance: str) -> list[Process]:
    """All live processes that carry the mark of ``instance``. Those that others may not look into are not ours."""
    found = (_read(int(entry.name), instance) for entry in os.scandir("/proc") if entry.name.isdigit())
    return [process for process in found if process is not None]


def _read(pid: int, instance: str) -> Process | None:
    directory = Path(f"/proc/{pid}")
    try:
        if not _is_marked(directory, instance) and not _is_front(directory, instance):
            return None
        # The name, in parentheses, may hold anything; what follows its last parenthesis is numbers.
        fields = (directory / "stat").read_text().rpartition(")")[2].split()
        command = (directory / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return None
    if fields[0] in "ZX":
        return None
    return Process(pid, int(fields[1]), int(fields[19]), tuple(command))


def _is_marked(directory: Path, instance: str) -> bool:
    return f"{MARK}={instance}".encode() in (directory / "environ").read_bytes().split(b"\0")


def _is_front(directory: Path, instance: str) -> bool:
    """nginx writes titles over its environment. It is known by its name and by where it is, which is nobody else's."""
    # The last part alone: from another mount namespace the path is not the same.
    where = os.path.basename(os.readlink(directory / "cwd"))
    return where == front.directory(instance).name and (directory / "comm").read_text() == "nginx\n"


def find(pid: int, instance: str) -> Process | None:
    """The process ``pid`` if it lives and is ours."""
    return _read(pid, instance)


def strays(processes: Iterable[Process], roots: Iterable[int]) -> list[Process]:
    """Those of ``processes`` that descend from none of ``roots`` and carry no tunnel.

    They are what a killed parent left behind: a web server's worker without its main process would go on answering
    with old code and old settings beside the new one, and nobody would end it.
    """
    by_pid = {process.pid: process for process in processes}
    anchors = set(roots)

    def attached(process: Process) -> bool:
        seen = set()
        while process.pid not in anchors:
            seen.add(process.pid)
            if process.parent in anchors:
                return True
            if process.parent not in by_pid or process.parent in seen:
                return False
            process = by_pid[process.parent]
        return True

    return [process for process in by_pid.values() if not process.is_tunnel and not attached(process)]


def end(processes: Iterable[Process], instance: str, grace: float, clock: Callable[[], float] = time.monotonic) -> int:
    """Ask ``processes`` to end, and after ``grace`` seconds kill those that have not. Returns how many there were."""
    handles = [handle for process in processes if (handle := _handle(process, instance)) is not None]
    try:
        for handle in handles:
            _signal(handle, signal.SIGTERM)
        for left in _wait(handles, clock() + grace, clock):
            _signal(left, signal.SIGKILL)
        _wait(handles, clock() + 5, clock)
    finally:
        for handle in handles:
            os.close(handle)
    return len(handles)


def _handle(process: Process, instance: str) -> int | None:
    """A descriptor of exactly this process: once open, its id cannot come to mean another one."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return None
    now = find(process.pid, instance)
    if now is not None and now.started == process.started:
        return handle
    os.close(handle)
    return None


def _signal(handle: int, number: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return


def _wait(handles: list[int], deadline: float, clock: Callable[[], float]) -> list[int]:
    """Wait for the processes behind ``handles`` to end; returns those that have not at ``deadline``."""
    left = set(handles)
    poll = select.poll()
    for handle in handles:
        poll.register(handle, select.POLLIN)
    while left and (remaining := deadline - clock()) > 0:
        for handle, _event in poll.poll(remaining * 1000):
            poll.unregister(handle)
            left.discard(handle)
    return sorted(left)
