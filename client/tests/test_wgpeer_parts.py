"""Small parts: which secrets to ask for, how networks are split, and the command's words and codes."""

from __future__ import annotations

import ipaddress
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
from wgpeer.envelope import InvalidResponse
from wgpeer.factors import MissingSecret, join_password
from wgpeer.responses import Route, read_configuration
from wgpeer.status import Status
from wgpeer.store import Store, StoreError, locked, write_file
from wgpeer.text import printable
from wgpeer.tunnel.linux import clean_up
from wgpeer.tunnel.split_tunnel import THROW, UNICAST, UNREACHABLE, MainTable, TableRoute, split_routes
from wgpeer_fakes import CONFIGURATION, VECTORS, profile_text


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
    assert join_password("otp_pin", {"pin": "2718", "passcode": "314159 "}, None) == "2718314159"
    with pytest.raises(MissingSecret, match="--otp"):
        join_password("otp_pin", {"pin": "2718"}, None)


def names(table: set[TableRoute]) -> tuple[set[str], set[str]]:
    """Networks through the tunnel, and networks thrown on."""
    through = {entry.network for entry in table if entry.kind == UNICAST}
    return through, {entry.network for entry in table if entry.kind == THROW}


def near(*networks: str) -> MainTable:
    return MainTable(frozenset(map(ipaddress.ip_network, networks)))


def test_networks_are_split() -> None:
    routes = [Route("10.9.0.0/24"), Route("0.0.0.0/0"), Route("192.0.2.0/24", excluded=True), Route("::/0")]
    wanted = split_routes(routes, "10.9.0.1", use_default_route=True)
    assert wanted.allowed_ips == ("0.0.0.0/0", "10.9.0.0/24", "10.9.0.1/32", "::/0")
    first, last = wanted.tables(socket.AF_INET, near())
    assert names(first) == ({"10.9.0.0/24", "10.9.0.1/32"}, {"192.0.2.0/24"})
    assert names(last) == ({"0.0.0.0/0"}, {"192.0.2.0/24"})
    first6, last6 = wanted.tables(socket.AF_INET6, near())
    assert (names(first6), names(last6)) == ((set(), set()), ({"::/0"}, set()))
    assert wanted.description == "IPv4 and IPv6: everything but this machine's LANs; not 192.0.2.0/24"


def test_what_a_configuration_says_of_domains_metrics_and_mtu() -> None:
    plain = read_configuration(CONFIGURATION)
    assert plain.routing_domains == ()  # of a server that knows nothing of them
    assert plain.routes[0].metric == 0
    assert read_configuration(CONFIGURATION | {"mtu": 0}).mtu == 0
    apart = {"search_domains": ["corp.example"], "routing_domains": ["lab.example"]}
    read = read_configuration(CONFIGURATION | apart | {"routes": [{"network": "10.0.0.0/8", "metric": 5}]})
    assert (read.search_domains, read.routing_domains) == (("corp.example",), ("lab.example",))
    assert read.routes == (Route("10.0.0.0/8", metric=5),)
    for wrong in (
        {"routing_domains": ["x\nnameserver 6.6.6.6"]},
        {"routing_domains": "x"},
        {"routing_domains": ["-x"]},
    ):
        with pytest.raises(InvalidResponse):
            read_configuration(CONFIGURATION | wrong)
    for metric in (-1, 2**31, "5", True):
        with pytest.raises(InvalidResponse):
            read_configuration(CONFIGURATION | {"routes": [{"network": "10.0.0.0/8", "metric": metric}]})


def test_behind_each_whole_internet_route_stands_an_unreachable_one() -> None:
    wanted = split_routes([Route("0.0.0.0/0", metric=50), Route("::/0")], "10.9.0.1", use_default_route=True)
    for family, everything in ((socket.AF_INET, "0.0.0.0/0"), (socket.AF_INET6, "::/0")):
        _, last = wanted.tables(family, near())
        by_metric = [entry.kind for entry in sorted(last, key=lambda entry: entry.metric)]
        assert by_metric == [UNICAST, UNREACHABLE]
        assert {entry.network for entry in last} == {everything}


def test_what_the_interface_cannot_carry_is_unreachable_and_not_left_to_leak() -> None:
    wanted = split_routes([Route("::/0"), Route("2001:db8:50::/64")], "10.9.0.1", use_default_route=True)
    first, last = wanted.tables(socket.AF_INET6, near(), usable=False)
    assert {entry.kind for entry in first | last} == {UNREACHABLE}
    assert {entry.network for entry in first | last} == {"::/0", "2001:db8:50::/64"}


def test_a_metric_is_set_and_a_lower_one_of_the_main_table_keeps_its_network() -> None:
    ten, twenty = ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("20.0.0.0/8")
    main = MainTable(metrics={ten: 100, twenty: 100, ipaddress.ip_network("30.0.0.0/8"): 0})
    routes = [Route(str(ten), metric=200), Route(str(twenty), metric=50), Route("30.0.0.0/8"), Route("0.0.0.0/0")]
    first, _ = split_routes(routes, "10.9.0.1", use_default_route=True).tables(socket.AF_INET, main)
    assert names(first)[1] == {"10.0.0.0/8"}
    assert TableRoute("20.0.0.0/8", UNICAST, 50) in first
    assert TableRoute("30.0.0.0/8", UNICAST, 0) in first
    twice = [Route("20.0.0.0/8", metric=7), Route("20.0.0.0/8", metric=9)]
    assert split_routes(twice, "10.9.0.1", use_default_route=True).included[twenty] == 7


@pytest.mark.parametrize("whole", ["0.0.0.0/0", "::/0"])
def test_the_internet_in_pieces_around_what_is_kept_outside_is_the_internet(whole: str) -> None:
    """So a server sends it, for clients that know no networks outside."""
    holes = {"0.0.0.0/0": ["203.0.113.77/32", "192.0.2.0/24"], "::/0": ["2001:db8:77::/64", "2001:db8::1/128"]}[whole]
    pieces: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = [ipaddress.ip_network(whole)]
    for hole in map(ipaddress.ip_network, holes):
        cut = [part for piece in pieces if hole.subnet_of(piece) for part in piece.address_exclude(hole)]  # type: ignore[arg-type]
        pieces = [piece for piece in pieces if not hole.subnet_of(piece)] + cut  # type: ignore[arg-type]
    other = "10.50.0.0/16" if whole == "0.0.0.0/0" else "fd50::/64"
    sent = [Route(str(piece)) for piece in pieces] + [Route(hole, excluded=True) for hole in holes] + [Route(other)]
    wanted = split_routes(sent, "10.9.0.1", use_default_route=True)
    assert [str(network) for network in wanted.default_routes] == [whole]
    assert {str(network) for network in wanted.included} == {other, "10.9.0.1/32"}
    assert {str(network) for network in wanted.excluded} == set(holes)
    assert split_routes(sent, "10.9.0.1", use_default_route=False).default_routes == {}
    for missing in range(len(pieces)):  # one piece less, and it is not the internet any more
        less = split_routes([*sent[:missing], *sent[missing + 1 :]], "10.9.0.1", use_default_route=True)
        assert less.default_routes == {}
        assert len(less.included) == len(pieces) + 1


def test_without_default_route_nothing_else_is_lost() -> None:
    wanted = split_routes([Route("0.0.0.0/0"), Route("10.0.0.0/8")], "10.9.0.1", use_default_route=False)
    assert wanted.allowed_ips == ("10.0.0.0/8", "10.9.0.1/32")
    assert wanted.tables(socket.AF_INET, near())[1] == set()
    assert wanted.description == "10.0.0.0/8"


def test_the_lan_inside_a_network_of_the_tunnel_stays_its_own() -> None:
    wanted = split_routes([Route("10.0.0.0/8")], "10.9.0.1", use_default_route=True)
    first, _ = wanted.tables(socket.AF_INET, near("10.1.2.0/24", "10.0.0.0/8", "192.168.1.0/24", "fd00::/64"))
    assert names(first) == ({"10.0.0.0/8", "10.9.0.1/32"}, {"10.1.2.0/24"})


def test_name_servers_in_no_route_are_known() -> None:
    routes = [Route("10.0.0.0/8"), Route("10.5.0.0/16", excluded=True), Route("::/0")]
    wanted = split_routes(routes, "10.9.0.1", use_default_route=True)
    carried = {text: wanted.covers(text) for text in ("10.1.1.1", "10.5.1.1", "8.8.8.8", "2001:db8::1", "10.9.0.1")}
    assert carried == {"10.1.1.1": True, "10.5.1.1": False, "8.8.8.8": False, "2001:db8::1": True, "10.9.0.1": True}


networks4 = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(
    lambda pair: f"{socket.inet_ntoa((pair[0] >> (32 - pair[1]) << (32 - pair[1])).to_bytes(4, 'big'))}/{pair[1]}"
)


@given(st.lists(st.tuples(networks4, st.booleans()), max_size=8), st.lists(networks4, max_size=5))
def test_the_gateway_is_always_inside(pairs: list[tuple[str, bool]], others: list[str]) -> None:
    wanted = split_routes([Route(*pair) for pair in pairs], "10.9.0.1", use_default_route=True)
    first, last = wanted.tables(socket.AF_INET, near(*others))
    assert "10.9.0.1/32" in names(first)[0]
    assert "10.9.0.1/32" not in names(first)[1]
    assert {entry.network for entry in first} & {"0.0.0.0/0"} <= {name for name, outside in pairs if outside}
    assert all(entry.network == "0.0.0.0/0" or entry.kind == THROW for entry in last)


def test_text_from_outside_cannot_command_the_terminal() -> None:
    assert printable("a\x1b]0;x\x07b\r\nc\u202ed") == "a ]0;x b  c d"
    assert len(printable("x" * 9999)) == 500


def test_a_lease_of_another_boot_sweeps_nothing(tmp_path: Path) -> None:
    lease = tmp_path / "recovery.json"
    write_file(lease, json.dumps({"interface": "wgp0", "index": 1, "boot": "another"}))
    clean_up(lease)
    assert not lease.exists()
    clean_up(lease)


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
    assert daemon.current_status(store, "x").state == s.FAILED
    with locked(store.lock_path("x")):
        assert daemon.current_status(store, "x").since == 1.5
        with pytest.raises(StoreError, match="up already"):
            daemon.run(store, "x", "", "auto")
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
        daemon.run(store, "x", "", "auto")
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
