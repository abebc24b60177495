"""The process of a profile as others see it: status, lock, log, recovery file and unit file."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from wgpeer import daemon
from wgpeer import status as s
from wgpeer.status import Status
from wgpeer.store import Store, StoreError, locked, write_file
from wgpeer.tunnel.recovery import clean_up
from wgpeer_fakes import HANGING

MOST_EXPOSED = 30  # of ten, times ten, as systemd-analyze counts; lower is better
# Noted and not set: what a process has once given up, whoever it starts cannot have again.
LIMITS_SET = """
import resource, sys
from wgpeer import cli
sys.argv[1:] = ["--version"]
asked = []
resource.setrlimit = lambda *each: asked.append(each)
try:
    cli.main()
except SystemExit:
    print(asked == [(resource.RLIMIT_CORE, (0, 0))])
"""


def test_a_process_that_died_is_shown_as_failed_and_a_living_one_as_it_says(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    s.save(store.status_path("x"), Status(profile="x", state=s.CONNECTED, pid=1, since=1.5, reconnects=2))
    assert daemon.current_status(store, "x").state == s.FAILED
    with locked(store.lock_path("x")):
        assert daemon.current_status(store, "x").since == 1.5
        with pytest.raises(StoreError, match="up already"):
            daemon.run(store, "x", "", daemon.Choices())
    assert daemon.stop(store, "x") is False  # process 1 is not ours and is left alone


def test_what_a_killed_process_said_last_is_never_shown_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path)
    s.save(store.status_path("x"), Status(profile="x", state=s.CONNECTED, pid=1, since=1.5))
    shown: list[Status] = []
    # The log is opened when others may already see that it is up.
    monkeypatch.setattr(daemon, "_open_log", lambda store, name: shown.append(daemon.current_status(store, name)))
    with pytest.raises(AttributeError):  # there is no log
        daemon.run(store, "x", "", daemon.Choices())
    assert [(status.state, status.pid) for status in shown] == [(s.STARTING, os.getpid())]


def test_the_log_is_private_and_rotates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "LOG_BYTES", 2000)
    store = Store.open(tmp_path)
    log = daemon._open_log(store, "x")
    log.removeHandler(log.handlers[1])
    for number in range(200):
        log.info("line %d", number)
    log.handlers[0].close()
    files = sorted(store.logs.iterdir())
    assert len(files) == 4
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    assert all(file.stat().st_size <= 2000 for file in files)


def test_status_survives_odd_files(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    odd: list[Any] = ["", "[]", "{", json.dumps({"state": 7, "since": "x", "unknown": 1}), "{}"]
    for text in odd:
        write_file(path, text)
        seen = s.load(path)
        assert seen is None or seen == Status()


def test_the_unit_file_is_sound() -> None:
    unit = Path(daemon.__file__).with_name("wgpeer@.service")
    settings = dict(line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line and line[0] != "#")
    assert settings["ExecStart"].endswith("wgpeer up --foreground %i")
    prevent = {str(code) for code in (daemon.EXIT_USAGE, daemon.EXIT_REFUSED, daemon.EXIT_MISSING)}
    assert set(settings["RestartPreventExitStatus"].split()) == prevent
    if shutil.which("systemd-analyze"):
        command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)]
        checked = subprocess.run(command, capture_output=True, text=True, timeout=HANGING, check=False)
        complaints = [line for line in checked.stderr.splitlines() if "wgpeer@" in line]
        assert [line for line in complaints if "is not executable" not in line] == []
        command = ["systemd-analyze", "security", "--offline=yes", f"--threshold={MOST_EXPOSED}", "--no-pager"]
        checked = subprocess.run([*command, unit], capture_output=True, text=True, timeout=HANGING, check=False)
        assert checked.returncode == 0, checked.stdout


def test_no_crash_leaves_a_core_file_with_keys_in_it() -> None:
    command = [sys.executable, "-c", LIMITS_SET]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGING, check=False)
    assert done.stdout.splitlines()[-1:] == ["True"], done.stderr


def test_a_recovery_file_of_another_boot_removes_nothing(tmp_path: Path) -> None:
    recovery_file = tmp_path / "recovery.json"
    write_file(recovery_file, json.dumps({"interface": "wgp0", "index": 1, "boot": "another"}))
    clean_up(recovery_file)
    assert not recovery_file.exists()
    clean_up(recovery_file)
