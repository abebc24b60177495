"""How much processor time programs have used. It says the same on a busy machine as on a quiet one, nearly."""

from __future__ import annotations

import os
from collections.abc import Mapping
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
    every, names = processes(), {pid: name for name, pid in roots.items()}
    found = dict.fromkeys(roots, 0.0)
    for pid, process in every.items():
        while pid not in names and pid in every:
            pid = every[pid].parent
        if pid in names:
            found[names[pid]] += process.seconds
    return found
