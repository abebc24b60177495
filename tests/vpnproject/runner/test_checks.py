"""``bin/run --check``: right in words, and without a trace."""

from __future__ import annotations

import fcntl
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import HANGING
from vpnproject.runner import checks, network
from vpnproject.runner.console import Progress

PROJECT = Path(__file__).resolve().parents[3]


def grades(findings: object) -> list[str]:
    return [finding.grade for finding in findings]  # type: ignore[attr-defined]


def test_old_python_and_missing_root_are_wrong() -> None:
    assert checks.python_version((3, 10)).grade == "wrong"
    assert checks.python_version((3, 12)).grade == "ok"
    assert "sudo" in checks.root(1000).words
    assert checks.root(0).grade == "ok"


def test_missing_packages_are_named_and_do_not_block() -> None:
    assert checks.missing_packages(["bash", "no-such-package-here", "dpkg"]) == ["no-such-package-here"]
    finding = checks.packages(["bash", "no-such-package-here"])
    assert finding.grade == "note"
    assert finding.words.endswith(": no-such-package-here")
    assert checks.packages(["bash"]).grade == "ok"


def test_a_machine_without_dpkg_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = checks.packages(["nftables", "redis-server"])
    assert finding.grade == "wrong"
    assert "nftables, redis-server" in finding.words


def test_without_kernel_wireguard_the_tun_device_decides(tmp_path: Path) -> None:
    assert grades(checks.wireguard(True, tmp_path / "none")) == ["ok"]
    missing = list(checks.wireguard(False, tmp_path / "none"))
    assert grades(missing) == ["wrong"]
    assert "No such file" in missing[0].words
    (tmp_path / "tun").touch()
    assert grades(checks.wireguard(False, tmp_path / "tun")) == ["note"]


def test_forwarding_that_is_off_is_only_noted(tmp_path: Path) -> None:
    path = tmp_path / "ip_forward"
    path.write_text("0\n")
    assert checks.forwarding(path).grade == "note"
    path.write_text("1\n")
    assert checks.forwarding(path).grade == "ok"


def test_little_memory_is_noted() -> None:
    assert checks.memory("MemTotal:  500000 kB\nMemFree: 1 kB\n").grade == "note"
    assert checks.memory("MemTotal: 4000000 kB\n").grade == "ok"


def test_a_full_disk_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.disk(tmp_path / "not" / "yet").grade == "ok"
    monkeypatch.setattr(checks, "LEAST_DISK_MB", 2**40)
    assert checks.disk(tmp_path).grade == "wrong"


def test_loose_files_in_var_are_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "secret_key").touch(mode=0o644)
    found = list(checks.var_files(tmp_path))
    assert grades(found) == ["note"]
    assert str(tmp_path / "secret_key") in found[0].words


def test_a_database_without_its_keys_is_wrong(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "database").mkdir(mode=0o700)
    (tmp_path / "database" / "db.sqlite3").touch(mode=0o600)
    assert "wrong" in grades(checks.var_files(tmp_path))
    (tmp_path / "settings.env").write_text("FIELD_KEYS_FILE=/etc/vpn/keys\n")
    (tmp_path / "settings.env").chmod(0o600)
    assert grades(checks.var_files(tmp_path)) == ["ok"]


def test_ports_that_are_taken_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "port_free", lambda port: False)
    (tmp_path / "settings.env").write_text("GATEWAY_PORT=9999\n")
    found = list(checks.ports(checks.Wanted(PROJECT, tmp_path, port=9443)))
    # The default argument of choose_port was bound before; only the gateway's port is seen as taken.
    assert found[-1].grade == "wrong"
    assert "Port 9999" in found[-1].words


def test_the_lock_of_a_running_one_is_seen(tmp_path: Path) -> None:
    lock = tmp_path / "run.lock"
    assert not checks.is_locked(lock)
    assert not lock.exists()
    with lock.open("w") as file:
        assert not checks.is_locked(lock)
        fcntl.flock(file, fcntl.LOCK_EX)
        assert checks.is_locked(lock)
    assert not checks.is_locked(lock)


@pytest.mark.parametrize(("found", "code"), [(["ok", "note"], 0), (["ok", "wrong", "wrong"], 1)])
def test_the_exit_code_says_whether_something_is_in_the_way(
    found: list[checks.Grade], code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(checks, "look", lambda wanted: iter([checks.Finding(grade, grade) for grade in found]))
    out = io.StringIO()
    assert checks.report(checks.Wanted(PROJECT, tmp_path), Progress(out)) == code
    assert ("2 to put right" in out.getvalue()) == bool(code)


def snapshot(directory: Path) -> dict[str, tuple[int, int]]:
    paths = [directory, *directory.rglob("*")]
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_mode) for path in paths}


def test_a_check_changes_nothing_and_needs_nothing_installed(tmp_path: Path) -> None:
    """Run as on a bare machine: by the system's Python, without any installed package."""
    var = tmp_path / "var"
    var.mkdir(mode=0o755)
    (var / "secret_key").write_text("x")
    runner = snapshot(PROJECT / "vpnproject" / "runner")
    before = snapshot(var)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", "import runpy, sys; sys.path[:0] = sys.argv.pop(1).split(':'); "
         "runpy.run_module('runner', run_name='__main__', alter_sys=True)",
         f"{PROJECT / 'vpnproject'}:{PROJECT}", "--check", "--var", str(var), "--public-address", "vpn.example.com"],
        capture_output=True,
        text=True,
        timeout=HANGING,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.stderr == ""
    assert "Public address vpn.example.com" in done.stdout
    assert "Others on this machine can use" in done.stdout
    assert snapshot(var) == before
    assert snapshot(PROJECT / "vpnproject" / "runner") == runner
