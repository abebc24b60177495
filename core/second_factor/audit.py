"""Lines in the history of an administrator's page."""

from __future__ import annotations

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User


def note(administrator: User, words: str, by: User | None = None) -> None:
    """``by``: who did it; None: they themselves. ``words`` hold no secret."""
    LogEntry.objects.log_actions((by or administrator).pk, [administrator], CHANGE, words)
