"""The time and the signals that end this process, behind one interface, so that tests need no real waiting."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol


class Stopped(Exception):
    """A signal asked this process to end."""


class Clock(Protocol):
    """All times are seconds."""

    def wall(self) -> float:
        """Unix time. It jumps when somebody sets the clock."""

    def boottime(self) -> float:
        """Time since boot. It never jumps, and goes on while the machine is suspended."""

    def wait(self, seconds: float) -> bool:
        """Wait. The wait stands still while the machine is suspended. True: it was cut short, because the network of
        this machine has changed since the last wait began. Raises ``Stopped``."""


class SystemClock:
    """The real clock. SIGTERM and SIGINT end a wait, or a request inside ``interruptible``, with ``Stopped``."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._woken, self._waker = os.pipe()
        for end in (self._writer, self._woken, self._waker):
            os.set_blocking(end, False)
        self._stopping = False
        self._interruptible = False

    def install(self) -> None:
        """Take over the signals that ask us to end."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        # No locks here: a handler may run in the middle of anything. The pipe wakes ``wait``.
        if not self._stopping:
            self._stopping = True
            os.write(self._writer, b"x")
        if self._interruptible:
            raise Stopped

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Blocking work inside ends with ``Stopped`` at the signal. Only for work that needs no tidying up."""
        self._interruptible = True
        try:
            if self._stopping:
                raise Stopped
            yield
        finally:
            self._interruptible = False

    def wall(self) -> float:
        """Unix time."""
        return time.time()

    def boottime(self) -> float:
        """``CLOCK_BOOTTIME``."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wake(self) -> None:
        """Cut the wait short that goes on now, or else the next one. From any thread."""
        with contextlib.suppress(BlockingIOError):  # so often already that the pipe is full
            os.write(self._waker, b"x")

    def wait(self, seconds: float) -> bool:
        """Wait until ``seconds`` are over or ``wake`` is called; True in that case. Raise ``Stopped`` as soon as a
        signal comes."""
        readable, _, _ = select.select([self._reader, self._woken], [], [], max(0.0, seconds))
        if self._reader in readable or self._stopping:
            raise Stopped
        if self._woken in readable:
            os.read(self._woken, 65536)
        return bool(readable)
