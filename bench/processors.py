"""How much processor time programs have used. It says the same on a busy machine as on a quiet one, nearly."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """``seconds`` are its own and those of its children that have ended."""

    parent: int
    seconds: float


def processes() -> dict[int, Process]:
    """All of this namespace, by process id."""
    found = {}
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        found[pid] = Process(int(fields[1]), sum(map(int, fields[11:15])) / TICKS)
    return found


def seconds_of_others() -> float:
    """Of all processes of this namespace but our own."""
    own = os.getpid()
    return sum(process.seconds for pid, process in processes().items() if pid != own)


def seconds_by_program(roots: Mapping[str, int]) -> dict[str, float]:
    """Of each program: its first process, whose id is given, and all below that one that are not another program's."""
    every, found = processes(), dict.fromkeys(roots, 0.0)
    for name, pid in _programs(roots, every):
        found[name] += every[pid].seconds
    return found


def waited_by_program(roots: Mapping[str, int]) -> dict[str, float]:
    """For how many seconds the threads that each program has now were ready to run and had no processor."""
    found = dict.fromkeys(roots, 0.0)
    for name, pid in _programs(roots, processes()):
        with suppress(OSError):  # it has just ended
            for thread in Path(f"/proc/{pid}/task").iterdir():
                found[name] += int((thread / "schedstat").read_text().split()[1]) / 1e9
    return found


def _programs(roots: Mapping[str, int], every: Mapping[int, Process]) -> Iterator[tuple[str, int]]:
    """Whose each process is."""
    names = {pid: name for name, pid in roots.items()}
    for found in every:
        pid = found
        while pid not in names and pid in every:
            pid = every[pid].parent
        if pid in names:
            yield names[pid], found
