"""Giving a thread's database connection back while it waits for somebody else: many may wait at the same time, and a
database has only so many connections. The next statement gets another one."""

from __future__ import annotations

from django.db import connection


def let_go_of_database() -> None:
    """Call it before waiting. Whoever is in a transaction needs theirs, and keeps it."""
    if not connection.in_atomic_block:
        connection.close()
