"""Processes that outlive the worker which started them, and belong to no one's process tree."""

from __future__ import annotations

import contextlib
import os
import select
import signal

END_WITHIN = 5.0  # seconds


def end(pid: int) -> None:
    """Ask the process to end; after ``END_WITHIN`` seconds, make it. One that is no more is as good as ended."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, number)
            if select.select([process], [], [], END_WITHIN)[0]:
                return
    finally:
        os.close(process)
