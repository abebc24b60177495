"""What a transaction changed, recorded once: each task that makes up for it is queued one time, after commit.

Django's own list of what to do on commit is the record. It belongs to the transaction and loses what a rolled back
savepoint had recorded, so whatever is recorded again after that is queued after all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction

from .task_queue import enqueue


@dataclass(frozen=True, slots=True)
class _Queued:
    """A task and its arguments, to be queued when the transaction commits."""

    task: str
    args: tuple[Any, ...]

    def __call__(self) -> None:
        enqueue(self.task, *self.args)


def after_commit(task: str, *args: Any) -> bool:
    """Queue ``task`` after the transaction (at once where there is none); False if this transaction does so already."""
    wanted = _Queued(task, args)
    # From the end: most often it is what was recorded last.
    if any(recorded == wanted for _, recorded, *_ in reversed(connection.run_on_commit)):
        return False
    transaction.on_commit(wanted, robust=True)
    return True
