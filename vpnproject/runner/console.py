"""What the person at the terminal reads: one line for each step, with the time it took."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

EVERY_ON_A_TERMINAL, EVERY = 1.0, 10.0


class RunError(Exception):
    """Something that only a person can put right; the message says what and how, and is shown without a traceback."""


class Progress:
    """Lines of progress on ``out``. ``clock`` gives seconds and only differences of it are used. ``every`` so many real
    seconds a step that goes on shows that it does."""

    def __init__(
        self, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic, every: float | None = None
    ) -> None:
        self._out = out if out is not None else sys.stdout
        self._clock = clock
        self._began = clock()
        self._terminal = self._out.isatty()
        self._every = every or (EVERY_ON_A_TERMINAL if self._terminal else EVERY)
        self._lock = threading.Lock()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One step. While it goes on, it shows for how long: on a terminal in one line that changes, else in a line now
        and then. Afterwards it is one line with its time, or as failed."""
        began = self._clock()
        if self._terminal:
            self._write(f"  ..   {name}", end="\r")
        done = threading.Event()
        ticking = threading.Thread(target=self._tick, args=(name, began, done), daemon=True)
        ticking.start()
        try:
            yield
        except BaseException:
            done.set()
            ticking.join()
            self._write(f"  !!   {name}: not done")
            raise
        done.set()
        ticking.join()
        self._write(f"  ok   {name:<46} {self._clock() - began:7.2f} s")

    def _tick(self, name: str, began: float, done: threading.Event) -> None:
        while not done.wait(self._every):
            self._write(f"  ..   {name:<46} {self._clock() - began:4.0f} s", end="\r" if self._terminal else "\n")

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
        with suppress(OSError), self._lock:
            # The line of a step that goes on may be longer than what takes its place.
            line = f"\033[K{line}" if self._terminal else line
            print(line, end=end, file=self._out, flush=True)
