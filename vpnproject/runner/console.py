"""What the person at the terminal reads: one line for each step, with the time it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


class RunError(Exception):
    """Something that only a person can put right; the message says what and how, and is shown without a traceback."""


class Progress:
    """Lines of progress on ``out``. ``clock`` gives seconds and only differences of it are used."""

    def __init__(self, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out if out is not None else sys.stdout
        self._clock = clock
        self._began = clock()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One step. It shows as running on a terminal, then as one line with its time, or as failed."""
        began = self._clock()
        if self._out.isatty():
            self._write(f"  ..   {name}", end="\r")
        try:
            yield
        except BaseException:
            self._write(f"  !!   {name}: not done")
            raise
        self._write(f"  ok   {name:<46} {self._clock() - began:7.2f} s")

    def good(self, words: str) -> None:
        self._write(f"  ok   {words}")

    def note(self, words: str) -> None:
        self._write(f"       {words}")

    def warn(self, words: str) -> None:
        self._write(f"  !    {words}")

    def fail(self, words: str) -> None:
        self._write(f"  !!   {words}")

    def elapsed(self) -> float:
        """Seconds since this object was made."""
        return self._clock() - self._began

    def plain(self, words: str = "") -> None:
        self._write(words)

    def _write(self, line: str, end: str = "\n") -> None:
        # The terminal is gone (a closed SSH session), or a file takes no more. What runs matters more than who reads
        # about it; and the disk may have room again for the next line.
        with suppress(OSError):
            print(line, end=end, file=self._out, flush=True)
