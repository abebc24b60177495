"""Pauses after wrong guesses: each budget that is used up makes the next pause twice as long."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings

from .clock import moment

LONGEST_PAUSE = timedelta(days=1)
# Without a wrong attempt, and without a pause: what was before is forgotten.
SILENCE = timedelta(days=1)


def pause_after(budgets: int) -> timedelta:
    """After so many budgets that were used up."""
    first = timedelta(seconds=settings.ATTEMPTS_WINDOW)
    doubled = min(budgets - 1, 20)  # far beyond the longest, and no number that grows for ever
    return min(first * (1 << doubled), LONGEST_PAUSE)


def seconds_left(until: datetime | None, now: float) -> int:
    """Whole seconds of a pause that are left; 0: there is none."""
    return 0 if until is None else max(0, -int((moment(now) - until).total_seconds() // 1))


def is_forgotten(last: datetime, paused_until: datetime | None, now: datetime) -> bool:
    return now > max(last, paused_until or last) + SILENCE
