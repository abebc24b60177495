"""A profile as a service of systemd. systemd itself is not here; what it would be told is written down by a command in
its place."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from wgpeer import cli, daemon
from wgpeer import status as s
from wgpeer.commands import service
from wgpeer.importer import parse_all
from wgpeer.status import Status
from wgpeer.store import Store
from wgpeer_fakes import HANGING, profile_text


@dataclass
class System:
    """A machine that systemd runs, with the profiles ``acme`` and ``acme+x`` on it."""

    root: Path
    run: Callable[..., tuple[int, str, str]]

    @property
    def unit(self) -> Path:
        return self.root / "units" / "wgpeer@.service"

    def told(self) -> list[str]:
        log = self.root / "told"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> System:
    for name in ("units", "booted", "bin"):
        (tmp_path / name).mkdir()
    recorder = tmp_path / "bin" / "systemctl"
    recorder.write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/told\n[ ! -e {tmp_path}/broken ] || {{ echo No >&2; exit 1; }}\n'
    )
    recorder.chmod(0o755)
    for name, path in {"UNITS": tmp_path / "units", "BOOTED": tmp_path / "booted"}.items():
        monkeypatch.setattr(service, name, path)
    monkeypatch.setattr(service, "SYSTEM_DIRECTORY", tmp_path / "d")
    monkeypatch.setattr(service, "HOMES", ("/home", "/root"))
    monkeypatch.setattr(service, "_executable", lambda: Path("/opt/wgpeer/bin/wgpeer"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("WGPEER_DIR", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["wgpeer", "--dir", str(tmp_path / "d"), *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code
        return code if isinstance(code, int) else 0, *capsys.readouterr()

    return System(tmp_path, run)


def add(system: System, name: str = "acme", **header: object) -> Store:
    store = Store.open(system.root / "d")
    store.add(name, parse_all({name: profile_text(**header)})[name])
    return store


def test_install_makes_systemd_connect_it_now_and_at_each_start(system: System) -> None:
    add(system)
    code, said, problem = system.run("service", "install", "acme")
    assert (code, problem) == (0, "")
    assert "acme connects at each start" in said
    assert system.told() == ["daemon-reload", "enable --now wgpeer@acme.service"]
    assert "ExecStart=/opt/wgpeer/bin/wgpeer up --foreground %i\n" in system.unit.read_text()
    assert oct(system.unit.stat().st_mode & 0o777) == "0o644"


def test_remove_makes_systemd_forget_it(system: System) -> None:
    add(system)
    assert system.run("service", "remove")[0] == 0
    assert system.told() == ["disable --now wgpeer@acme.service"]


def test_a_profile_that_is_up_becomes_the_services(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the service would find that it is up already, and give up."""
    store = add(system)
    order: list[str] = []
    monkeypatch.setattr(daemon, "stop", lambda _store, name: order.append(f"stopped {name}, {len(system.told())} told"))
    assert system.run("service", "install")[0] == 0
    assert order == ["stopped acme, 0 told"]
    assert s.load(store.status_path("acme")) in (None, Status())


@pytest.mark.parametrize("name", ["alice+vpn", "a b", "Über@x", "-rf", "50%", "a\\b"])
def test_every_name_of_a_profile_names_a_unit(system: System, name: str) -> None:
    store = add(system, name)
    (kept,) = store.names()
    told = service.instance(kept)
    escaped = subprocess.run(
        ["systemd-escape", "--mangle", told], capture_output=True, text=True, timeout=HANGING, check=True
    )
    assert escaped.stdout.strip() == told
    assert "%" not in told


def test_who_is_asked_for_a_secret_is_told_that_nobody_types_it(system: System) -> None:
    add(system, password_mode="otp_pin")
    code, _, problem = system.run("service", "install")
    assert code == 0
    assert "a pin and a passcode, which nobody types" in " ".join(problem.split())


def test_nothing_is_changed_where_a_service_could_not_work(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    assert system.run("service", "install")[0] == 5  # no profile yet
    add(system)
    monkeypatch.setattr(service, "SYSTEM_DIRECTORY", system.root / "elsewhere")
    code, _, problem = system.run("service", "install")
    assert (code, "without --dir" in problem) == (1, True)
    monkeypatch.setattr(service, "SYSTEM_DIRECTORY", system.root / "d")
    monkeypatch.setattr(service, "BOOTED", system.root / "not")
    code, _, problem = system.run("service", "install")
    assert (code, "systemd does not run this machine" in problem) == (1, True)
    assert (system.told(), system.unit.exists()) == ([], False)


def test_a_systemctl_that_fails_is_said(system: System) -> None:
    add(system)
    (system.root / "broken").touch()
    code, _, problem = system.run("service", "install")
    assert code == 1
    assert "systemctl daemon-reload failed: No" in problem


@pytest.mark.parametrize(
    ("where", "problem"), [("/home/alice/venv", "in somebody's home"), ("/opt/my tools", "systemd cannot run")]
)
def test_a_command_that_systemd_cannot_run_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], where: str, problem: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["-m"])
    monkeypatch.setattr(sys, "executable", f"{where}/bin/python")
    with pytest.raises(SystemExit) as ended:
        service._executable()
    assert ended.value.code == 1
    assert problem in " ".join(capsys.readouterr().err.split())
