"""From bin/run's start until it says that all is up: on a machine that has nothing, and once more from rest.

Both against Django's own start, which every program of ours pays: ``manage.py check``, as many at once as there are
programs, before and after.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Figure, spread
from bench.installation import say
from bench.load import WrongAnswer
from bench.run import Run
from tests.lab import HANGING, PYTHON, Lab, Machine

ROUNDS = 3
PROGRAMS = 7
BARS = {"first": 8.0, "second": 6.0}


def measure(directory: Path) -> Iterator[Figure]:
    django: dict[str, list[float]] = {"first": [], "second": []}
    starts: dict[str, list[float]] = {"first": [], "second": []}
    with Lab() as lab:
        machine = lab.add_host()
        for number in range(1, ROUNDS + 1):
            run = Run(machine, directory / f"run{number}")
            for name, took in starts.items():
                before = _django(machine)
                took.append(run.start())
                run.stop()
                django[name].append((before + _django(machine)) / 2)
            say(
                f"start: round {number} of {ROUNDS}: "
                + ", ".join(f"{name} {starts[name][-1]:.1f} s" for name in starts)
            )
    for name, took in starts.items():
        ratio = statistics.median(ours / theirs for ours, theirs in zip(took, django[name], strict=True))
        note = f"s: {spread(took)}, {PROGRAMS} times manage.py check {spread(django[name])}"
        yield Figure(f"{name}_start_to_django", ratio, "ratio", BARS[name], at_most=True, note=note)


def _django(machine: Machine) -> float:
    began = time.perf_counter()
    processes = [machine.start(PYTHON, "manage.py", "check") for _ in range(PROGRAMS)]
    statuses = [process.wait(HANGING) for process in processes]
    if any(statuses):
        raise WrongAnswer("manage.py check failed")
    return time.perf_counter() - began
