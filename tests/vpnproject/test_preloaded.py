"""web and gateway web load the application once and fork: what is loaded is in memory once, and nothing that a fork
must not share is there yet."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import HANGING, PROJECT, ended_afterwards, until
from tests.processes import environment
from vpnproject import threads

APPLICATIONS = {"web": "vpnproject.wsgi:application", "gateway": "vpnproject.wsgi_gateway:application"}
# What is there when a process is about to be forked, and what the fork has of it.
LOOK = """
import importlib, json, os, sys, threading
importlib.import_module(sys.argv[1].partition(":")[0])
opened = {}
for each in os.listdir("/proc/self/fd"):
    try:
        opened[int(each)] = os.readlink(f"/proc/self/fd/{each}")
    except FileNotFoundError:
        pass  # the listing itself
from django.db import connections
read, write = os.pipe()
if not os.fork():
    os.write(write, str(sys.getswitchinterval()).encode())
    os._exit(0)
print(json.dumps({
    "threads": len(os.listdir("/proc/self/task")),
    "opened": [what for number, what in opened.items() if number > 2],
    "connected": [each.alias for each in connections.all(initialized_only=True) if each.connection is not None],
    "turn": float(os.read(read, 100)),
}))
"""


@pytest.mark.parametrize("application", APPLICATIONS.values(), ids=list(APPLICATIONS))
def test_loading_opens_no_connection_and_begins_no_thread_and_a_fork_takes_short_turns(application: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOK, application],
        cwd=PROJECT,
        env={**os.environ, **environment()},
        capture_output=True,
        text=True,
        timeout=HANGING,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found.pop("turn") == pytest.approx(threads.TURN)
    assert found == {"threads": 1, "opened": [], "connected": []}


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """web, of two processes."""
    options = ("--interface", "wsgi", "--uds", str(tmp_path / "web"), "--workers", "2", "--blocking-threads", "1")
    again = ("--respawn-failed-workers", "--log-level", "warning")
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "vpnproject.preloaded", *options, *again, APPLICATIONS["web"]],
            cwd=PROJECT,
            env={**os.environ, **environment()},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    with ended_afterwards(process):
        until(lambda: process.poll() is not None or answers(tmp_path / "web"), every=0.1)
        assert process.poll() is None, (tmp_path / "log").read_text()
        yield process


def answers(where: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(HANGING)
        try:
            client.connect(str(where))
            client.sendall(b"GET /admin/login/ HTTP/1.0\r\nHost: here\r\n\r\n")
            return client.recv(100).startswith(b"HTTP/1.0 200")
        except OSError:
            return False


def children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def of_its_own(pid: int) -> int:
    """KiB that no other process shares with it."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))


def test_processes_have_little_memory_of_their_own(parent: subprocess.Popen[bytes]) -> None:
    found = children(parent.pid)
    assert len(found) == 2
    assert max(map(of_its_own, found)) < resident(parent.pid) / 2


def test_one_that_dies_is_forked_anew_and_one_goes_on_meanwhile(
    parent: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    before = children(parent.pid)
    dead = min(before)
    os.kill(dead, signal.SIGKILL)
    assert answers(tmp_path / "web")
    until(lambda: len(children(parent.pid) - {dead}) == 2, every=0.1)
    assert before - {dead} < children(parent.pid)
    assert answers(tmp_path / "web")


def test_an_application_that_cannot_be_loaded_ends_it_at_once_and_says_why(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vpnproject.preloaded", "--interface", "wsgi", "vpnproject.nothing:application"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=HANGING,
        check=False,
    )
    assert done.returncode
    assert "No module named 'vpnproject.nothing'" in done.stderr
