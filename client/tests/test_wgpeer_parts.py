"""Small parts: which secrets to ask for, how networks are split, name servers, and the command's words and codes."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wgpeer import __version__, cli, daemon
from wgpeer import status as s
from wgpeer.answers import Route
from wgpeer.factors import MissingSecret, join_password
from wgpeer.status import Status
from wgpeer.store import Store, StoreError, locked, write
from wgpeer.tunnel import dns
from wgpeer.tunnel.machine import sweep
from wgpeer.tunnel.routing import Network, split
from wgpeer.words import plain
from wgpeer_fakes import VECTORS, profile_text


@pytest.mark.parametrize(
    ("mode", "joined", "asked"),
    [
        (None, "", []),
        ("", "", []),
        ("pin", "<PIN>", ["PIN"]),
        ("otp", "<Passcode>", ["Passcode"]),
        ("otp_pin", "<PIN><Passcode>", ["PIN", "Passcode"]),
        ("yubikey", "<YubiKey (touch it)>", ["YubiKey (touch it)"]),
        ("yubikey_pin", "<PIN><YubiKey (touch it)>", ["PIN", "YubiKey (touch it)"]),
        ("duo_otp", "<Passcode>", ["Passcode"]),
        ("okta_otp_pin", "<PIN><Passcode>", ["PIN", "Passcode"]),
        ("onelogin_otp_pin", "<PIN><Passcode>", ["PIN", "Passcode"]),
        ("password", "<Password>", ["Password"]),
        ("otp_password", "<Password><Passcode>", ["Password", "Passcode"]),
        ("something_new", "<Password>", ["Password"]),
    ],
)
def test_secrets_are_asked_for_and_joined_as_the_server_wants_them(
    mode: str | None, joined: str, asked: list[str]
) -> None:
    questions: list[str] = []

    def ask(what: str) -> str:
        questions.append(what)
        return f"<{what}>"

    assert join_password(mode, {}, ask) == joined
    assert questions == asked


def test_what_was_given_is_not_asked_for() -> None:
    assert join_password("otp_pin", {"pin": "2718", "code": "314159 "}, None) == "2718314159"
    with pytest.raises(MissingSecret, match="--otp"):
        join_password("otp_pin", {"pin": "2718"}, None)


def names(table: dict[str, bool]) -> tuple[set[str], set[str]]:
    """Networks through the tunnel, and networks thrown on."""
    return {name for name, thrown in table.items() if not thrown}, {name for name, thrown in table.items() if thrown}


def local(*networks: str) -> list[Network]:
    import ipaddress

    return [ipaddress.ip_network(network) for network in networks]


def test_networks_are_split() -> None:
    routes = [Route("10.9.0.0/24"), Route("0.0.0.0/0"), Route("192.0.2.0/24", outside=True), Route("::/0")]
    wanted = split(routes, "10.9.0.1", use_default_route=True)
    assert wanted.allowed_ips == ("0.0.0.0/0", "10.9.0.0/24", "10.9.0.1/32", "::/0")
    first, last = wanted.tables(socket.AF_INET, [])
    assert names(first) == ({"10.9.0.0/24", "10.9.0.1/32"}, {"192.0.2.0/24"})
    assert names(last) == ({"0.0.0.0/0"}, {"192.0.2.0/24"})
    first6, last6 = wanted.tables(socket.AF_INET6, [])
    assert (names(first6), names(last6)) == ((set(), set()), ({"::/0"}, set()))


def test_without_default_route_nothing_else_is_lost() -> None:
    wanted = split([Route("0.0.0.0/0"), Route("10.0.0.0/8")], "10.9.0.1", use_default_route=False)
    assert wanted.allowed_ips == ("10.0.0.0/8", "10.9.0.1/32")
    assert wanted.tables(socket.AF_INET, [])[1] == {}


def test_the_lan_inside_a_network_of_the_tunnel_stays_its_own() -> None:
    wanted = split([Route("10.0.0.0/8")], "10.9.0.1", use_default_route=True)
    first, _ = wanted.tables(socket.AF_INET, local("10.1.2.0/24", "10.0.0.0/8", "192.168.1.0/24", "fd00::/64"))
    assert names(first) == ({"10.0.0.0/8", "10.9.0.1/32"}, {"10.1.2.0/24"})


networks4 = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(
    lambda pair: f"{socket.inet_ntoa((pair[0] >> (32 - pair[1]) << (32 - pair[1])).to_bytes(4, 'big'))}/{pair[1]}"
)


@given(st.lists(st.tuples(networks4, st.booleans()), max_size=8), st.lists(networks4, max_size=5))
def test_the_gateway_is_always_inside(pairs: list[tuple[str, bool]], near: list[str]) -> None:
    wanted = split([Route(*pair) for pair in pairs], "10.9.0.1", use_default_route=True)
    first, last = wanted.tables(socket.AF_INET, local(*near))
    assert first["10.9.0.1/32"] is False
    assert set(first) & {"0.0.0.0/0"} <= {name for name, outside in pairs if outside}
    assert all(name == "0.0.0.0/0" or thrown for name, thrown in last.items())


def program(directory: Path, name: str, *, works: bool) -> None:
    """A stand-in that notes its arguments and input."""
    path = directory / name
    path.write_text(
        f'#!/bin/sh\necho "{name} $*" >> "{directory}/log"\ncat >> "{directory}/log"\nexit {int(not works)}\n'
    )
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("resolvectl", "resolvconf", "words", "calls"),
    [
        (True, True, "by resolvectl", ["resolvectl dns wgp0 10.9.0.1", "resolvectl domain wgp0 ~. corp.example"]),
        (
            False,
            True,
            "by resolvconf",
            ["resolvectl dns wgp0 10.9.0.1", "resolvconf -a wgp0.wgpeer", "nameserver 10.9.0.1", "search corp.example"],
        ),
        (False, False, "not set", ["resolvectl dns wgp0 10.9.0.1"]),
    ],
)
def test_name_servers(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    resolvectl: bool,
    resolvconf: bool,
    words: str,
    calls: list[str],
) -> None:
    program(tmp_path, "resolvectl", works=resolvectl)
    program(tmp_path, "resolvconf", works=resolvconf)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert words in dns.apply("wgp0", ("10.9.0.1",), ("corp.example",))
    assert (tmp_path / "log").read_text().splitlines()[: len(calls)] == calls
    (tmp_path / "log").unlink()
    dns.restore("wgp0")
    assert (tmp_path / "log").read_text().splitlines() == ["resolvectl revert wgp0", "resolvconf -d wgp0.wgpeer"]


def test_without_servers_or_programs_nothing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    before = Path("/etc/resolv.conf").read_bytes()
    assert dns.apply("wgp0", (), ()) == ""
    assert "not set" in dns.apply("wgp0", ("10.9.0.1",), ())
    dns.restore("wgp0")
    assert Path("/etc/resolv.conf").read_bytes() == before


def test_text_from_outside_cannot_command_the_terminal() -> None:
    assert plain("a\x1b]0;x\x07b\r\nc\u202ed") == "a ]0;x b  c d"
    assert len(plain("x" * 9999)) == 500


def test_a_lease_of_another_boot_sweeps_nothing(tmp_path: Path) -> None:
    lease = tmp_path / "lease.json"
    write(lease, json.dumps({"interface": "wgp0", "index": 1, "boot": "another"}))
    sweep(lease)
    assert not lease.exists()
    sweep(lease)


# --- the command ------------------------------------------------------------------------------------------------------


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
        timeout=30,
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
    ("arguments", "code", "words"),
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
    wgpeer: Wgpeer, arguments: list[str], code: int, words: str
) -> None:
    ended, _, problem = wgpeer(*arguments)
    assert ended == code, problem
    assert words in problem
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


def test_a_process_that_died_is_shown_as_failed_and_a_living_one_as_it_says(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    s.save(store.status_path("x"), Status(profile="x", state=s.CONNECTED, pid=1, since=1.5, reconnects=2))
    assert daemon.current(store, "x").state == s.FAILED
    with locked(store.lock_path("x")):
        assert daemon.current(store, "x").since == 1.5
        with pytest.raises(StoreError, match="up already"):
            daemon.run(store, "x", "", "auto")
    assert daemon.stop(store, "x") is False  # process 1 is not ours and is left alone


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
        write(path, text)
        seen = s.load(path)
        assert seen is None or seen == Status()


def test_the_unit_file_is_sound() -> None:
    unit = Path(__file__).parents[1] / "wgpeer@.service"
    settings = dict(line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line and line[0] != "#")
    assert settings["ExecStart"].endswith("wgpeer up --foreground %i")
    prevent = {str(code) for code in (daemon.EXIT_USAGE, daemon.EXIT_REFUSED, daemon.EXIT_MISSING)}
    assert set(settings["RestartPreventExitStatus"].split()) == prevent
    if shutil.which("systemd-analyze"):
        command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)]
        checked = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        complaints = [line for line in checked.stderr.splitlines() if "wgpeer@" in line]
        assert [line for line in complaints if "is not executable" not in line] == []
