"""Text that came from outside, made fit to be shown."""

from __future__ import annotations


def printable(text: str, limit: int = 500) -> str:
    """``text`` on one line, without control characters (a terminal would obey them), at most ``limit`` characters."""
    return "".join(c if c.isprintable() else " " for c in text[:limit]).strip()
