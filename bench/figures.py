"""What a benchmark found: one figure, its bar, and how they are shown."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """``value`` must be at least ``bar``, or at most where ``at_most``. ``note`` says what it was made from."""

    name: str
    value: float
    unit: str
    bar: float
    at_most: bool
    note: str = ""

    @property
    def reached(self) -> bool:
        return self.value <= self.bar if self.at_most else self.value >= self.bar

    def line(self) -> str:
        """One JSON object, as ``--json`` prints it."""
        return json.dumps({"name": self.name, "value": round(self.value, 4), "unit": self.unit, "bar": self.bar})

    def dump(self) -> str:
        """All of it as one line of JSON, for ``load``."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def load(cls, line: str) -> Figure:
        return cls(**json.loads(line))


def table(figures: Sequence[Figure]) -> str:
    rows = [("figure", "value", "to reach", "", "made from")]
    for figure in figures:
        bar = f"{'<=' if figure.at_most else '>='} {figure.bar:g}"
        verdict = "reached" if figure.reached else "MISSED"
        rows.append((figure.name, f"{figure.value:.3g} {figure.unit}", bar, verdict, figure.note))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def spread(values: Sequence[float]) -> str:
    """Median and extremes, for notes and progress."""
    return f"{statistics.median(values):.3g} ({min(values):.3g}-{max(values):.3g})"
