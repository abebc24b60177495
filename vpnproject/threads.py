"""Threads of one process hold each other up: one of them runs Python at any time. One that holds the database's write
lock while it waits for its turn holds up all processes."""

from __future__ import annotations

import gc
import sys

# A thread that computes gives up its turn after so many seconds, where another one wants it. That one has to ask again
# after each of its statements: by Python's own 5 ms a transaction of ten takes 50 ms beside it, and everybody waits.
TURN = 0.0005


def share() -> None:
    """For a process of several threads, once it has loaded what it needs.

    That stays until the process ends, and is never garbage. To look for garbage in it takes 50 to 100 ms, for which all
    threads stand still: so it is not looked at again.
    """
    sys.setswitchinterval(TURN)
    gc.collect()
    gc.freeze()
