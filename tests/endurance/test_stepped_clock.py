"""The clock of an installation is set for all of its processes at once, and for nobody else."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from tests.lab import HANGING, PYTHON

from .stepped_clock import line_for, set_ahead, stepped

HOUR = 3600


def test_it_is_seen_at_once_and_the_right_time_is_left_alone(tmp_path: Path) -> None:
    set_ahead(tmp_path / "clock", 0)
    clock = stepped(tmp_path / "clock")
    assert abs(clock() - time.time()) < HOUR
    for hours in (3, -3, 0):
        set_ahead(tmp_path / "clock", hours * HOUR)
        assert hours - 1 < (clock() - time.time()) / HOUR < hours + 1


def test_a_process_that_read_the_line_goes_by_it_while_it_runs(tmp_path: Path) -> None:
    set_ahead(tmp_path / "clock", 0)
    # Python reads such a line twice at times.
    program = f"{2 * line_for(tmp_path / 'clock')}import time\nwhile input(): print(time.time(), flush=True)\n"
    with subprocess.Popen(
        [PYTHON, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for hours in (0, 3, -3):
            set_ahead(tmp_path / "clock", hours * HOUR)
            process.stdin.write("now\n")
            process.stdin.flush()
            assert hours - 1 < (float(process.stdout.readline()) - time.time()) / HOUR < hours + 1
        process.stdin.write("\n")
        process.stdin.close()
        process.wait(HANGING)
