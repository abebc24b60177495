"""The time of day of an installation, set forward and back for all of its Python processes at the same moment.

Each of them maps one file that holds by how many seconds it is set, and adds that to ``time.time()``. No other clock
moves, as when somebody sets a machine's time; nginx's and Redis's do not either, who only measure how long things take.

A line in a ``.pth`` file of the virtual environment has every process do so when it starts: programs that supervisor
starts get no variable of ours. Only the run's own mount namespace has that line.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Callable
from pathlib import Path

_FORMAT = struct.Struct("d")


def ahead_of(file: Path) -> Callable[[], float]:
    """A function that says by how much the clock is set now."""
    with file.open("rb") as opened:
        mapped = mmap.mmap(opened.fileno(), _FORMAT.size, prot=mmap.PROT_READ)
    return lambda: float(_FORMAT.unpack_from(mapped)[0])


def stepped(file: Path) -> Callable[[], float]:
    """``time.time`` as the installation has it."""
    ahead = ahead_of(file)
    # Not time.time: that may be this very function already, where the line is read twice.
    return lambda: time.clock_gettime(time.CLOCK_REALTIME) + ahead()


def install(file: str) -> None:
    """Be called by the ``.pth`` file, before anything else is imported."""
    clock = stepped(Path(file))
    time.time = clock
    time.time_ns = lambda: int(clock() * 1e9)


def set_ahead(file: Path, seconds: float) -> None:
    """All see it at once: the file is written over, not replaced."""
    with file.open("r+b" if file.exists() else "w+b") as opened:
        opened.write(_FORMAT.pack(seconds))
    file.chmod(0o644)  # for the users of all programs


def line_for(file: Path) -> str:
    """The line of the ``.pth`` file. It works without the project among the places where modules are looked for."""
    load = f"importlib.util.spec_from_file_location('stepped_clock', {str(Path(__file__).resolve())!r})"
    return (
        f"import importlib.util; s = {load}; m = importlib.util.module_from_spec(s); s.loader.exec_module(m);"
        f" m.install({str(file)!r})\n"
    )
