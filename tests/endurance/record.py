"""What happened in one run: a line of JSON for each step and answer, and what the judging needs of it."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO


@dataclass(frozen=True, slots=True)
class Said:
    """What one request was answered. ``what`` is ``connect``, ``ping``, ``old key`` or ``used code``; ``sent`` and
    ``answered`` are Unix seconds. ``status`` is the HTTP status, 0 where nothing came; ``word`` what the answer said:
    ``allowed``, ``refused``, ``true``, ``false``, or an error's code or name."""

    client: str
    what: str
    key: str
    sent: float
    answered: float
    status: int
    word: str
    address: str = ""


@dataclass
class Record:
    """Written by many threads. ``concerned``: by client, what was done to it; ``clock_steps``: by how many seconds the
    clock was set, all steps together."""

    path: Path
    said: list[Said] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    concerned: dict[str, list[str]] = field(default_factory=dict)
    clock_steps: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _monotonic: float = field(default_factory=time.monotonic)
    _file: TextIO | None = None

    def passed(self) -> float:
        """Seconds since the beginning, by a clock that nobody sets."""
        return time.monotonic() - self._monotonic

    def note(self, actor: str, action: str, **more: Any) -> None:
        line = json.dumps({"at": round(self.passed(), 3), "actor": actor, "action": action, **more})
        with self._lock:
            self._file = self._file or self.path.open("w")
            self._file.write(line + "\n")
            self._file.flush()

    def answer(self, said: Said) -> None:
        took = round(said.answered - said.sent, 3)
        self.note(said.client, said.what, key=said.key[:8], status=said.status, word=said.word, took=took)
        with self._lock:
            self.said.append(said)

    def problem(self, words: str) -> None:
        """What was seen to be wrong in the middle; said once."""
        with self._lock:
            new = words not in self.problems
            if new:
                self.problems.append(words)
        if new:
            self.note("check", "PROBLEM", words=words)

    def concern(self, name: str, action: str) -> None:
        """An administrator has done ``action`` to whoever has this name."""
        with self._lock:
            self.concerned.setdefault(name, []).append(action)
