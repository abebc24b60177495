"""Connects against an empty view as ``bench.connect`` has them, with PostgreSQL in place of SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench import connect
from bench.figures import Figure


def measure(directory: Path) -> Iterator[Figure]:
    rounds = connect.run(directory, first_connects=False)
    yield connect.to_empty("connect_to_empty_view_postgresql", rounds.empty, rounds.connects, bar=0.13)
