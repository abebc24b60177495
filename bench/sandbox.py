"""Run one benchmark where it can hurt nobody: a directory, and network, mount and process namespaces of its own.

Whatever it starts lives in its process namespace and ends with it: when it is done, when it fails, when it takes too
long, on Ctrl-C, and also when we are killed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from bench.figures import Figure

PROJECT = Path(__file__).resolve().parent.parent
LIMIT = 1800.0  # seconds, after which it is taken to hang; each takes about one minute where nothing else runs
NAMESPACES = ("--net", "--mount", "--pid", "--fork", "--mount-proc", "--propagation", "private")


class BenchFailed(Exception):
    """A benchmark ended without its figures; what happened is on stderr."""


def run(name: str, clients: int = 0) -> list[Figure]:
    """Run the benchmark ``name`` to its end and return its figures. Needs root. ``clients`` 0: as many as it takes."""
    with tempfile.TemporaryDirectory(prefix="vpn-bench-") as directory:
        command = ["unshare", *NAMESPACES, sys.executable, "-m", "bench.inside", name, directory]
        if clients:
            command.append(str(clients))
        process = subprocess.Popen(
            command,
            cwd=PROJECT,
            stdin=subprocess.PIPE,  # it lives for as long as this is open
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for us alone, and we end it
        )
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(LIMIT, process.stdin.close)
        timer.start()
        try:
            lines = process.stdout.read().splitlines()
        finally:
            timer.cancel()
            process.stdin.close()
            # unshare ends after the first process of the namespace, which ends after all others.
            status = process.wait()
            process.stdout.close()
    if status:
        raise BenchFailed(name)
    return [Figure.load(line) for line in lines]
