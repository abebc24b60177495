"""A thread that computes holds up no other thread of its process for long: neither by its turns nor by looking for
garbage in what is there for good. Whoever holds the write lock in such a process would hold up everybody."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.lab import HANGING, PROJECT
from vpnproject import threads

LOADS = {
    "web": "import vpnproject.wsgi",
    "gateway": "import vpnproject.wsgi_gateway",
    "control": "import vpnproject.celery; from celery import signals; signals.worker_ready.send(None)",
}
LOOK = """
import gc, sys
print(sys.getswitchinterval())
print(gc.get_freeze_count(), len(gc.get_objects()))
"""


@pytest.mark.parametrize("program", LOADS)
def test_its_process_takes_short_turns_and_keeps_what_it_loaded_out_of_the_garbage(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADS[program] + "\n" + LOOK],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=HANGING,
        check=True,
    )
    turn, kept, looked_at = map(float, done.stdout.split())
    assert turn == pytest.approx(threads.TURN)
    assert kept > 50 * looked_at
