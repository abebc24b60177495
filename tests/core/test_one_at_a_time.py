"""Work in a thread of its own: one at a time, and a process ends after it."""

from __future__ import annotations

import subprocess
import sys
import threading

from core.one_at_a_time import OneAtATime
from tests.lab import HANGING


def test_one_is_done_at_a_time_and_whoever_begins_it_goes_on() -> None:
    each, began, go_on = OneAtATime("test"), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        assert go_on.wait(HANGING)

    assert each.begin(work)
    assert began.wait(HANGING)
    assert not each.begin(work)
    go_on.set()
    assert each.wait(HANGING)
    assert each.begin(lambda: None)
    assert each.wait(HANGING)


def test_what_fails_is_over_too() -> None:
    each = OneAtATime("test")

    def fail() -> None:
        raise ValueError

    for _ in range(2):
        assert each.begin(fail)
        assert each.wait(HANGING)


PROCESS = """
import threading
import time
from django.conf import settings
from core.one_at_a_time import OneAtATime, is_ending
settings.configure()

begun = threading.Event()

def work():
    print("began", is_ending(), flush=True)
    begun.set()
    while not is_ending():
        time.sleep(0.01)
    print("done", flush=True)

assert OneAtATime("test").begin(work)
begun.wait()
print("left", flush=True)
"""


def test_a_process_waits_for_it_and_it_knows() -> None:
    done = subprocess.run([sys.executable, "-c", PROCESS], capture_output=True, text=True, timeout=HANGING)
    assert done.stderr == ""
    assert sorted(done.stdout.split("\n")) == ["", "began False", "done", "left"]
    assert done.stdout.endswith("done\n")
