"""Supervisor goes on when its logs, and those of its programs, cannot be written; on real disks that are full."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import FAILURES, HANGING, PROJECT, PYTHON, Disk, Namespace, ended_afterwards, until
from vpnproject.runner import processes
from vpnproject.runner.supervise import ENTRY, Supervisor

pytestmark = pytest.mark.host

# It logs one line for each time that it is told to.
PROGRAM = """#!/bin/sh
while :; do
    rm {told} 2>/dev/null && printf '%01000d\\n' 7
    sleep 0.02
done
"""
CONFIGURATION = """
[supervisord]
nodaemon=true
silent=true
loglevel=debug
logfile={var}/log/supervisord.log
logfile_maxbytes=4KB
logfile_backups=2
pidfile={var}/log/supervisord.pid
childlogdir={var}/log
[unix_http_server]
file={var}/supervisor.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[program:talker]
command={var}/talker.sh
autorestart=true
startsecs=0
redirect_stderr=true
stdout_logfile={var}/log/talker.log
stdout_logfile_maxbytes=4KB
stdout_logfile_backups=2
"""


@pytest.fixture
def var() -> Iterator[Path]:
    # Not pytest's own directory: the path of a socket may not be long.
    directory = Path(tempfile.mkdtemp(prefix="vpn-logs-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def machine() -> Iterator[Namespace]:
    made = Namespace("logs")
    yield made
    made.close()


@pytest.mark.parametrize("how", FAILURES)
def test_supervisor_and_its_programs_outlive_logs_that_fail(machine: Namespace, var: Path, how: str) -> None:
    (var / "log").mkdir()
    disk, told = Disk(machine, var / "log"), var / "told"
    (var / "talker.sh").write_text(PROGRAM.format(told=told))
    (var / "talker.sh").chmod(0o700)
    (var / "supervisord.conf").write_text(CONFIGURATION.format(var=var))
    instance = secrets.token_hex(8)

    def log(lines: int) -> None:
        for _ in range(lines):
            told.touch()
            until(lambda: not told.exists())

    command: list[str | Path] = [PYTHON, "-P", ENTRY, "-c", var / "supervisord.conf"]
    process = machine.start(*command, env={processes.MARK: instance}, log=var / "out")
    # A program that is asked to end just when it is started does not hear it, and is killed ten seconds later.
    with ended_afterwards(process, HANGING):
        supervisor = Supervisor(var, PROJECT, {}, instance)
        until(supervisor.find)
        log(2)
        until(lambda: disk.text("talker.log").count("7\n") == 2)

        disk.fail(how)
        log(10)
        before = supervisor.states()[0].pid
        os.kill(before, signal.SIGKILL)  # the next one needs a log as well
        until(lambda: supervisor.states()[0].pid not in (0, before))
        log(2)
        assert (process.poll(), supervisor.alive()) == (None, True)

        disk.recover(how)
        log(1)
        until(lambda: "writes to this log failed before this line" in disk.text("talker.log"))
        os.kill(supervisor.states()[0].pid, signal.SIGKILL)
        until(lambda: "spawned: 'talker'" in disk.text("supervisord.log"))
    assert process.returncode == 0
