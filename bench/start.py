"""From bin/run's start until it says that all is up: on a machine that has nothing, and once more from rest.

Both against Django's own start, which every program of ours pays: ``manage.py check``, a moment before.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Figure, spread
from bench.installation import say
from bench.run import Run
from tests.lab import PYTHON, Lab, Machine

ROUNDS = 3
BARS = {"first": 10.0, "second": 7.0}


def measure(directory: Path) -> Iterator[Figure]:
    django: list[float] = []
    starts: dict[str, list[float]] = {"first": [], "second": []}
    with Lab() as lab:
        machine = lab.add_host()
        for number in range(1, ROUNDS + 1):
            run = Run(machine, directory / f"run{number}")
            for took in starts.values():
                django.append(_django(machine))
                took.append(run.start())
                run.stop()
            say(
                f"start: round {number} of {ROUNDS}: "
                + ", ".join(f"{name} {starts[name][-1]:.1f} s" for name in starts)
            )
    for place, (name, took) in enumerate(starts.items()):
        against = django[place::2]
        ratio = statistics.median(ours / theirs for ours, theirs in zip(took, against, strict=True))
        note = f"s: {spread(took)}, manage.py check {spread(against)}"
        yield Figure(f"{name}_start_to_django", ratio, "ratio", BARS[name], at_most=True, note=note)


def _django(machine: Machine) -> float:
    began = time.perf_counter()
    machine.run(PYTHON, "manage.py", "check")
    return time.perf_counter() - began
