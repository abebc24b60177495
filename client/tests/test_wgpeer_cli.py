"""The command: its output and its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from wgpeer import __version__, cli
from wgpeer_fakes import HANGING, VECTORS, profile_text

Wgpeer = Callable[..., tuple[int, str, str]]


@pytest.fixture
def wgpeer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Wgpeer:
    """Run the command in this process: exit code, output, errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["wgpeer", "--dir", str(tmp_path / "d"), *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code
        return code if isinstance(code, int) else 0, *capsys.readouterr()

    return run


def test_the_module_runs_too() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-m", "wgpeer", "--version"],
        capture_output=True,
        text=True,
        timeout=HANGING,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, __version__, "")


def test_add_list_status_remove(tmp_path: Path, wgpeer: Wgpeer) -> None:
    (tmp_path / "acme.ovpn").write_text(profile_text(user="[bold]mallory[/bold]\u001b[2J"))
    code, added, problem = wgpeer("add", str(tmp_path / "acme.ovpn"))
    assert code == 0, problem
    assert "[bold]mallory[/bold]" in added
    assert "\x1b" not in added
    assert "acme" in wgpeer("list")[1]
    code, shown, _ = wgpeer("status", "--json")
    assert code == 1
    (status,) = json.loads(shown)
    wanted = {"state", "address", "gateway", "host", "since", "last_ping", "public_key", "interface", "reconnects"}
    assert wanted <= set(status)
    assert (status["state"], status["profile"]) == ("down", "acme")
    assert VECTORS["sync_secret"] not in added + shown
    assert wgpeer("remove", "acme")[0] == 0
    assert "no profile yet" in wgpeer("list")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["up"], 5, "wgpeer add"),
        (["status", "nothing"], 5, "no profile yet"),
        (["logs"], 5, "no profile yet"),
        (["down"], 5, "nothing is up"),
        (["add", "http://vpn.example/k/a"], 1, "not https"),
        (["add", "/nowhere.tar"], 1, "cannot be read"),
        (["frobnicate"], 2, "frobnicate"),
    ],
)
def test_errors_are_one_line_with_a_code_of_their_own(
    wgpeer: Wgpeer, arguments: list[str], code: int, message: str
) -> None:
    ended, _, problem = wgpeer(*arguments)
    assert ended == code, problem
    assert message in problem
    assert "Traceback" not in problem


def test_a_missing_pin_is_asked_for_by_its_option(tmp_path: Path, wgpeer: Wgpeer) -> None:
    (tmp_path / "acme.ovpn").write_text(profile_text(password_mode="otp_pin"))
    wgpeer("add", str(tmp_path / "acme.ovpn"))
    code, _, problem = wgpeer("up", "--otp", "123456")
    assert code == 2
    assert "--pin" in problem


def test_a_tunnel_needs_root(monkeypatch: pytest.MonkeyPatch, wgpeer: Wgpeer) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert wgpeer("up")[0] == 6
    assert "sudo" in wgpeer("down")[2]
