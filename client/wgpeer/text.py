"""Text that came from outside, made fit to be shown."""

from __future__ import annotations


def printable(text: str, limit: int = 500) -> str:
    """``text`` as one line of at most ``limit`` characters. Control characters become spaces: a terminal would obey
    them."""
    return "".join(c if c.isprintable() else " " for c in text[:limit]).strip()
