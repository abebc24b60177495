"""Checkout and var are in reach of the programs' users, wherever they are, and only for what ``bin/run`` starts."""

from __future__ import annotations

import json
import os
import secrets
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import HANGING, PROJECT
from vpnproject.runner import checkout, mounts, privileges
from vpnproject.runner.console import RunError

# Enters the house and says what is found there; after a line on its input it takes it down, and ends.
INSIDE = """
import json, os, subprocess, sys
from pathlib import Path
from runner import mounts
from runner.privileges import wrapped

house = mounts.house(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
mounts.enter(house)

def said(*command):
    done = subprocess.run(wrapped("web", command), capture_output=True, text=True)
    return done.stdout + done.stderr

print(json.dumps({
    "by its own path": said("cat", str(house.project / "code.py")),
    "in the house": said("cat", str(house.code / "code.py")),
    "written by root": subprocess.run(["touch", str(house.code / "new")], capture_output=True, text=True).stderr,
    "same socket": os.path.samestat(os.stat(house.var / "redis"), os.stat(house.outer / "redis")),
    "host": sorted(os.listdir(house.host_side)),
    "hidden": [str(path) for path in house.hidden()],
}), flush=True)
sys.stdin.readline()
mounts.leave(house)
"""


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A directory as /root is, with a checkout and its ``var``."""
    privileges.make_users()
    project = tmp_path / "closed" / "project"
    for name in ("host", "redis"):
        (project / "var" / name).mkdir(parents=True)
    (project / "code.py").write_text("the code\n")
    project.chmod(0o755)
    project.parent.chmod(0o700)
    return project


def test_users_reach_what_is_in_a_closed_directory_and_the_machine_sees_nothing_of_it(closed: Path) -> None:
    instance = secrets.token_hex(16)
    house = mounts.house(instance, closed, closed / "var")
    process = subprocess.Popen(
        [sys.executable, "-c", INSIDE, instance, closed, closed / "var"],
        env={**os.environ, "PYTHONPATH": f"{PROJECT / 'vpnproject'}:{PROJECT}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        found = json.loads(process.stdout.readline())
        assert "Permission denied" in found["by its own path"]
        assert found["in the house"] == "the code\n"
        assert "Read-only" in found["written by root"]
        assert found["same socket"]
        assert found["host"] == ["host", "redis"]
        assert found["hidden"] == [str(house.var), str(closed / "var"), str(house.code / "var")]
        # Out here there are empty directories, and no mount.
        assert list(house.code.iterdir()) == []
        assert instance not in Path("/proc/self/mountinfo").read_text()
        assert mounts.lives_in(house, process.pid)
        assert not mounts.lives_in(house, os.getpid())
        assert not mounts.lives_in(mounts.house(instance, PROJECT, closed / "var"), process.pid)
        process.communicate(b"\n", HANGING)
    assert process.returncode == 0
    assert not house.home.exists()


def test_a_directory_of_somebody_elses_is_not_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "vpn").mkdir()
    os.chown(tmp_path / "vpn", 65534, 65534)
    monkeypatch.setattr(mounts, "HOMES", tmp_path / "vpn")
    with pytest.raises(RunError, match="not a directory of root's"):
        mounts.build(mounts.house("x", tmp_path, tmp_path))


def test_the_first_closed_directory_is_named(closed: Path) -> None:
    found = mounts.closed_to_others(closed)
    # pytest's own directories may be closed too.
    assert found in (closed.parent, *closed.parent.parents)
    assert not found.stat().st_mode & stat.S_IXOTH


def test_the_way_to_what_all_may_run_is_open() -> None:
    assert mounts.closed_to_others(Path("/usr/bin/env")) is None


def test_a_checkout_that_only_root_may_read_is_refused_with_the_command_that_helps(closed: Path) -> None:
    closed.chmod(0o700)
    with pytest.raises(RunError, match=f"chmod -R a\\+rX {closed}"):
        checkout.check_reachable(closed)


def test_a_python_below_a_closed_directory_is_refused_with_what_to_do(closed: Path) -> None:
    python = closed.parent / "python3"
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    (closed / ".venv" / "bin").mkdir(parents=True)
    (closed / ".venv" / "bin" / "python").symlink_to(python)
    with pytest.raises(RunError, match=r"closed to all but root.*rm -r .*\.venv"):
        checkout.check_reachable(closed)


def test_code_is_compiled_for_those_who_may_not_write_there(closed: Path) -> None:
    (closed / "core").mkdir()
    (closed / "core" / "clock.py").write_text("now = 1\n")
    before = os.umask(0o077)
    try:
        checkout.compile_code(closed)
    finally:
        os.umask(before)
    (compiled,) = (closed / "core" / "__pycache__").iterdir()
    assert compiled.stat().st_mode & 0o044 == 0o044
