"""The command: its output and its exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from wgpeer import __version__, cli, daemon, display
from wgpeer.api_client import DeviceInfo
from wgpeer.commands import app, profiles
from wgpeer.transport import HttpResponse
from wgpeer_fakes import HANGING, VECTORS, http_server, profile_text

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


def test_the_version_is_a_command_too(wgpeer: Wgpeer) -> None:
    assert wgpeer("version")[:2] == wgpeer("--version")[:2] == (0, f"{__version__}\n")


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
        (["up", "--backend", "magic"], 2, "magic"),
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
    for command in (["up"], ["down"], ["service", "install"], ["service", "remove"]):
        code, _, problem = wgpeer(*command)
        assert (code, "sudo wgpeer " + " ".join(command) in problem) == (6, True), problem


def test_a_link_that_works_once_is_not_used_up_by_whoever_cannot_connect(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wgpeer: Wgpeer, certificate: tuple[Path, Path]
) -> None:
    fetched: list[str] = []

    def answer(_method: str, path: str, _headers: dict[str, str], _raw: bytes) -> HttpResponse:
        fetched.append(path)
        return HttpResponse(200, json.dumps({"acme.ovpn": profile_text()}).encode())

    monkeypatch.setenv("WGPEER_DIR", "")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with http_server(answer, tls=certificate) as port:
        link = f"pritunl://127.0.0.1:{port}/ku/Short1"
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setattr(app, "default_directory", lambda: tmp_path / "d")
        monkeypatch.setattr(profiles, "default_directory", lambda: tmp_path / "d")
        code, _, problem = wgpeer("add", link)
        assert (code, fetched) == (6, [])
        assert f"sudo wgpeer add {link}" in problem
        monkeypatch.undo()
        monkeypatch.setattr(sys, "argv", ["wgpeer", "--dir", str(tmp_path / "d"), "add", link])
        with contextlib.suppress(SystemExit):
            cli.main()
        assert fetched == ["/ku/Short1"]


def test_list_as_json(tmp_path: Path, wgpeer: Wgpeer) -> None:
    assert json.loads(wgpeer("list", "--json")[1]) == []
    (tmp_path / "acme.ovpn").write_text(profile_text())
    wgpeer("add", str(tmp_path / "acme.ovpn"))
    expected = {"profile": "acme", "user": "alice", "organization": "acme", "server": "office", "state": "down"}
    assert json.loads(wgpeer("list", "--json")[1]) == [expected]


def test_add_names_the_command_that_connects(tmp_path: Path, wgpeer: Wgpeer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    for name, server in (("acme", "a" * 24), ("b c", "b" * 24)):
        (tmp_path / f"{name}.ovpn").write_text(profile_text(server_id=server))
    assert f"connect with: wgpeer --dir {tmp_path / 'd'} up\n" in wgpeer("add", str(tmp_path / "acme.ovpn"))[1]
    assert f"connect with: wgpeer --dir {tmp_path / 'd'} up b_c\n" in wgpeer("add", str(tmp_path / "b c.ovpn"))[1]
    monkeypatch.setattr(profiles, "default_directory", lambda: tmp_path / "d")
    assert "connect with: wgpeer up b_c\n" in wgpeer("add", str(tmp_path / "b c.ovpn"))[1]
    # Whoever used sudo for this will be an ordinary user again in the next line.
    monkeypatch.setenv("SUDO_USER", "alice")
    assert "connect with: sudo wgpeer up b_c\n" in wgpeer("add", str(tmp_path / "b c.ovpn"))[1]


def test_add_names_a_command_that_the_shell_finds(tmp_path: Path) -> None:
    """A wgpeer in a place of its own, which no link in the search path leads to."""
    (tmp_path / "acme.ovpn").write_text(profile_text())
    own = Path(sys.executable).with_name("wgpeer")
    command = [str(own), "--dir", str(tmp_path / "d"), "add", str(tmp_path / "acme.ovpn")]
    for path, called in ((f"{own.parent}:/usr/bin", "wgpeer"), ("/usr/bin", str(own))):
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=HANGING, check=True, env={"PATH": path, "TERM": "dumb"}
        )
        assert f"connect with: {called} --dir {tmp_path / 'd'} up\n" in done.stdout


@pytest.mark.parametrize(
    ("seconds", "shown"), [(5, "5 s ago"), (600, "10 min ago"), (3660, "1 h 1 min ago"), (7200, "2 h 0 min ago")]
)
def test_times_are_said_without_what_is_nothing(seconds: int, shown: str) -> None:
    assert display.ago(time.time() - seconds) == shown


def test_the_exit_codes_are_those_of_the_readme() -> None:
    text = " ".join((Path(__file__).parents[1] / "README.md").read_text().split())
    start = text.index("Exit codes:")
    listed = dict(re.findall(r"(\d) ([a-z ]+)", text[start : text.index(".", start)]))
    words = {
        daemon.EXIT_OK: "done",
        daemon.EXIT_FAILED: "failed",
        daemon.EXIT_USAGE: "wrong usage",
        daemon.EXIT_REFUSED: "the server refused",
        daemon.EXIT_PENDING: "not connected yet",
        daemon.EXIT_MISSING: "no such profile",
        daemon.EXIT_RIGHTS: "needs root",
    }
    assert {int(code): said for code, said in listed.items() if said}.keys() == words.keys()
    assert all(listed[str(code)].startswith(said) for code, said in words.items())


def test_the_device_is_called_by_its_host_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "laptop.example")
    assert DeviceInfo.gather().name == "laptop.example"
    assert DeviceInfo.gather("Alice's laptop").name == "Alice's laptop"
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost.localdomain")
    assert DeviceInfo.gather().name == ""  # the profile has a better one
