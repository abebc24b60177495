"""Which request a thread answers, so that its lines in the log, and what was decided of it, can be found together."""

from __future__ import annotations

import secrets
from contextvars import ContextVar

LENGTH = 16

_current: ContextVar[str] = ContextVar("request_id", default="")


def begin() -> str:
    """A new id for what this thread does from here on: hexadecimal digits, random, so that it says nothing."""
    name = secrets.token_hex(LENGTH // 2)
    _current.set(name)
    return name


def current() -> str:
    """Empty outside a request."""
    return _current.get()


def of_log() -> dict[str, str]:
    """What is said of it with each line of the log."""
    return {"request": current()}
