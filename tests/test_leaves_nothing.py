"""Tests leave no directories behind, of which a machine that runs them often would have thousands."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parent


def test_whoever_makes_a_directory_removes_it() -> None:
    """By ``TemporaryDirectory``, or by hand: then both stand in one file."""
    makers = {
        path.relative_to(TESTS).as_posix(): path.read_text()
        for path in TESTS.rglob("*.py")
        if "mkdtemp(" in path.read_text() and path != Path(__file__)
    }
    assert len(makers) > 5
    assert [name for name, text in makers.items() if "rmtree(" not in text and ".rmdir()" not in text] == []
