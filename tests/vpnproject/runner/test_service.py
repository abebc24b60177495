"""The unit of ``bin/run --install-service``, as systemd itself reads and judges it."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest

from tests.lab import HANGING
from vpnproject.runner import privileges, service
from vpnproject.runner.checks import Wanted
from vpnproject.runner.console import Progress, RunError

PROJECT = Path(__file__).resolve().parents[3]
# Of ten, times ten; lower is better. A service with root's full rights has 96.
MOST_EXPOSED = 52


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    return Wanted(PROJECT, tmp_path / "var")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    (tmp_path / "units").mkdir()
    return tmp_path / "units"


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANGING, check=False)


def test_systemd_reads_the_unit_without_a_complaint(wanted: Wanted, units: Path) -> None:
    service.install(wanted, Progress(io.StringIO()), units)
    done = analyze("verify", units / service.NAME)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_service_is_not_exposed_more_than_it_must_be(wanted: Wanted, units: Path) -> None:
    service.install(wanted, Progress(io.StringIO()), units)
    path = units / service.NAME
    done = analyze("security", "--offline=yes", f"--threshold={MOST_EXPOSED}", "--no-pager", path)
    assert done.returncode == 0, done.stdout


def test_it_runs_this_checkout_and_tells_no_secret_to_the_journal(wanted: Wanted) -> None:
    assert f"\nExecStart={PROJECT}/bin/run --service --var {wanted.var}\n" in service.unit(wanted)
    assert (PROJECT / "bin" / "run").exists()


def test_what_runs_outlives_a_bin_run_that_dies(wanted: Wanted) -> None:
    """The next one takes it over; tunnels are among it."""
    lines = service.unit(wanted).splitlines()
    assert {"KillMode=process", "Restart=on-failure", "OOMPolicy=continue"} <= set(lines)


def test_it_may_do_all_that_its_programs_keep() -> None:
    kept = {name.upper() for row in privileges.TABLE.values() for name in row.capabilities}
    assert kept <= set(service.CAPABILITIES)


def test_homes_are_hidden_unless_the_checkout_is_in_one(wanted: Wanted) -> None:
    elsewhere = Wanted(Path("/opt/vpn"), Path("/opt/vpn/var"))
    assert "\nProtectHome=yes\n" in service.unit(elsewhere)
    assert "\nProtectHome=read-only\n" in service.unit(Wanted(Path("/root/vpn"), Path("/opt/var")))
    assert "\nProtectHome=read-only\n" in service.unit(Wanted(Path("/opt/vpn"), Path("/home/alice/var")))


def test_what_was_done_and_what_is_left_is_said(wanted: Wanted, units: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "BOOTED", units / "none")
    said = io.StringIO()
    service.install(wanted, Progress(said), units)
    assert f"Wrote {units / service.NAME}" in said.getvalue()
    assert "systemctl daemon-reload is left to do" in said.getvalue()
    assert f"systemctl enable {service.NAME} is left to do" in said.getvalue()
    service.uninstall(Progress(said), units)
    assert list(units.iterdir()) == []
    assert wanted.var.is_dir()
    with pytest.raises(RunError, match="There is no"):
        service.uninstall(Progress(said), units)


def test_where_systemd_runs_the_service_is_enabled_and_stopped_before_it_is_forgotten(
    wanted: Wanted, units: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for systemctl that notes what it is told, and whether the unit was there."""
    told = tmp_path / "told"
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f'#!/bin/sh\necho "$* $(ls {units})" >>{told}\n')
    systemctl.chmod(0o755)
    monkeypatch.setattr(service, "_SYSTEMCTL", str(systemctl))
    monkeypatch.setattr(service, "BOOTED", tmp_path)
    service.install(wanted, Progress(io.StringIO()), units)
    service.uninstall(Progress(io.StringIO()), units)
    name = service.NAME
    assert told.read_text().splitlines() == [
        f"daemon-reload {name}",
        f"enable {name} {name}",
        f"disable --now {name} {name}",
        "daemon-reload ",
    ]


def test_a_machine_without_systemd_is_told_so(wanted: Wanted, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no systemd"):
        service.install(wanted, Progress(io.StringIO()), tmp_path / "none")
