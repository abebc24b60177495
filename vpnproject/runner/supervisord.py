"""Supervisor, with logs that may fail: a disk that is full, read-only or has no inodes left costs lines and no program.

Supervisor itself reports a line that it could not write on its standard error, which is a file on the same disk, and
ends when that fails as well. And it starts no program whose log it cannot open.

Started by its path, as it needs nothing of the project and should carry nothing of it in memory.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any

from supervisor import loggers, supervisord


class LogFile:
    """What a logger of supervisor's writes to, not its ``RotatingFileHandler``. No method raises OSError."""

    level = loggers.LevelsByName.INFO
    fmt = "%(message)s"

    def __init__(self, filename: str, mode: str = "ab", maxBytes: int = 0, backupCount: int = 0) -> None:
        self._name, self._most, self._backups = filename, maxBytes, backupCount
        self._file: io.FileIO | None = None
        self._lost = 0

    def setFormat(self, fmt: str) -> None:
        self.fmt = fmt

    def setLevel(self, level: int) -> None:
        self.level = level

    def emit(self, record: Any) -> None:
        """Write it, or count it as lost."""
        data = record.msg if isinstance(record.msg, bytes) else (self.fmt % record.asdict()).encode(errors="replace")
        try:
            if self._lost:
                self._write(b"[%d writes to this log failed before this line]\n" % self._lost)
                self._lost = 0
            self._write(data)
            self._rotate()
        except OSError:
            self._lost += 1
            self.close()

    def _write(self, data: bytes) -> None:
        if self._file is None:
            # Without a buffer: what could not be written must not come back at the next write.
            self._file = open(self._name, "ab", buffering=0)  # noqa: SIM115 (it stays open)
        while data:  # an almost full disk takes a part
            data = data[self._file.write(data) :]

    def _rotate(self) -> None:
        if self._file is None or not 0 < self._most <= self._file.tell():
            return
        self.close()
        for number in range(self._backups, 0, -1):
            older = f"{self._name}.{number - 1}" if number > 1 else self._name
            with suppress(FileNotFoundError):
                os.replace(older, f"{self._name}.{number}")

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()

    def reopen(self) -> None:
        self.close()  # the next line opens it

    def remove(self) -> None:
        self.close()
        with suppress(OSError):
            os.remove(self._name)

    def flush(self) -> None:
        """Nothing waits here."""


class Unfailing(io.FileIO):
    """Standard output and error: nobody ends for words that find no room."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def main() -> None:
    """As ``python -m supervisor.supervisord``."""
    loggers.RotatingFileHandler = LogFile
    sys.stdout = io.TextIOWrapper(Unfailing(1, "wb", closefd=False), write_through=True)
    sys.stderr = io.TextIOWrapper(Unfailing(2, "wb", closefd=False), write_through=True)
    supervisord.main()


if __name__ == "__main__":
    main()
