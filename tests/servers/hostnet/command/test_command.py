"""``bin/host`` where it needs no machine: addresses that people type, what is kept, and the unit as systemd judges it.
What it does with a real one is in ``tests/host/test_net_joining.py``."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from servers.hostnet.command import asking, cli, machine, status, unit
from servers.hostnet.command.asking import Address, ask
from servers.hostnet.command.place import HostError, Place
from servers.hostnet.state.joining import Token
from servers.hostnet.state.privileges import CAPABILITIES
from tests.lab import HANGING, PROJECT
from tests.vpnproject.runner.test_service import analyze
from vpnproject.runner import privileges

MOST_EXPOSED = 45  # of ten, times ten; lower is better
# Noted and not set: what a process has once given up, whoever it starts cannot have again.
LIMITS_SET = """
import resource
from servers.hostnet.agent import worker
asked = []
resource.setrlimit = lambda *each: asked.append(each)
try:
    worker.main(["no such option"])
except SystemExit:
    print(asked == [(resource.RLIMIT_CORE, (0, 0))])
"""
KEY = base64.b64encode(bytes(range(32))).decode()
SAID = {
    "id": "abc123",
    "name": "Berlin & more",
    "redis": "redis://mesh/0",
    "redis_user": "host.abc123",
    "redis_password": "p-assword_1",
    "web_port": 9790,
    "mesh": {
        "addresses": ["fd00::2/128"],
        "port": 51800,
        "mtu": 0,
        "peers": [
            {
                "host": "x",
                "public_key": KEY,
                "endpoints": ["198.51.100.1:51800"],
                "addresses": ["fd00::1/128"],
                "allowed_ips": [],
            }
        ],
        "serves": [],
        "redis": ["[fd00::1]:9791"],
    },
}


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("vpn.example.com", "vpn.example.com", 443, "vpn.example.com"),
        (" vpn.example.com:8443 ", "vpn.example.com", 8443, "vpn.example.com:8443"),
        ("https://vpn.example.com/", "vpn.example.com", 443, "vpn.example.com"),
        ("203.0.113.5", "203.0.113.5", 443, "203.0.113.5"),
        ("2001:db8::5", "2001:db8::5", 443, "[2001:db8::5]"),
        ("[2001:db8::5]:8443", "2001:db8::5", 8443, "[2001:db8::5]:8443"),
    ],
)
def test_address_is_read_as_people_type_it(text: str, host: str, port: int, shown: str) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, str(address)) == (host, port, shown)


@pytest.mark.parametrize(
    "text", ["", "http://x", "x:99999", "https://x/path", "a b", "x?y", "-x", "[::1", "ftp://x", "x\ny"]
)
def test_what_is_no_address_is_said(text: str) -> None:
    with pytest.raises(HostError, match="no address"):
        Address.parse(text)


@dataclass
class Stranger:
    """An HTTPS server with a certificate of its own that answers whatever it is asked."""

    port: int
    answer: tuple[int, bytes] = (200, b"{}")
    asked: list[bytes] = field(default_factory=list)


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[Stranger]:
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x", "-days", "2"]
    subprocess.run(["openssl", "req", "-x509", *kind, *files], check=True, capture_output=True, timeout=HANGING)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.asked.append(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = found.answer
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    found = Stranger(server.server_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield found
    server.shutdown()
    thread.join(HANGING)
    server.server_close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((200, b"{}"), "answered HTTP 200"),
        ((403, b'{"error": "used_token", "detail": "used, believe me"}'), r"It said \(HTTP 403\): used, believe me"),
        ((200, b'{"box": "' + base64.b64encode(bytes(80)) + b'"}'), "answered HTTP 200"),
        ((502, b"<html>"), "answered HTTP 502"),
        ((200, b'{"detail": "\\u001b[31mred"}'), r"\?\[31mred"),
        ((200, b"[" * 100_000), "answered HTTP 200"),
    ],
)
def test_whoever_answers_without_the_key_is_not_believed_and_learns_nothing(
    stranger: Stranger, answer: tuple[int, bytes], words: str
) -> None:
    token = Token.make(os.urandom(32))
    stranger.answer = answer
    with pytest.raises(HostError, match=words) as said:
        ask(Address("127.0.0.1", stranger.port), token, "join", public_key=KEY)
    assert "did not prove" in str(said.value)
    (body,) = stranger.asked
    assert set(json.loads(body)) == {"key", "box"}
    for secret in (token.sent, token.text, KEY):
        assert secret.encode() not in body


def test_what_nobody_listens_on_is_said() -> None:
    with pytest.raises(HostError, match="cannot be asked"):
        asking.ask(Address("127.0.0.1", 1), Token.make(os.urandom(32)), "check")
    with pytest.raises(HostError, match="not a token"):
        asking.ask(Address("127.0.0.1", 1), Token.make(bytes(32)), "check")


def test_what_the_control_side_said_is_kept_for_root_alone(tmp_path: Path) -> None:
    place = Place(tmp_path / "host")
    private, new = place.private_key()
    assert new
    assert not place.directory.exists()
    place.keep(SAID, private, "vpn.example.com")
    assert place.joined()
    assert place.environment() == {
        "HOST_ID": "abc123",
        "HOST_REDIS_URL": "redis://host.abc123:p-assword_1@mesh/0",
        "HOST_VAR": str(tmp_path / "host"),
        "HOSTNET_BACKEND": os.environ.get("HOSTNET_BACKEND", "auto"),
        "VPN_GATEWAY_PORT": "9790",
        "LOG_FORMAT": os.environ.get("LOG_FORMAT", "line"),
    }
    assert place.about() == {"name": "Berlin & more", "address": "vpn.example.com"}
    assert {path.stat().st_mode & 0o777 for path in place.directory.iterdir()} == {0o600}
    assert place.directory.stat().st_mode & 0o777 == 0o700
    assert place.private_key() == (private, False)


def test_machine_that_has_not_joined_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("status", "run", "leave"):
        assert cli.main(["--directory", str(tmp_path / "none"), command]) == 1
        assert "has joined nothing" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_machine_that_could_join_says_so_and_nothing_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "check_carries_nothing", lambda: None)  # other tests' tunnels are here too
    monkeypatch.setattr(machine, "check_port", lambda _port: None)
    directory = tmp_path / "host"
    assert cli.main(["--directory", str(directory), "--check"]) == 0
    assert "Nothing keeps it from joining" in capsys.readouterr().out
    assert not directory.exists()
    for words in ([], ["--check", "status"]):
        with pytest.raises(SystemExit):
            cli.main(words)


@pytest.mark.parametrize(
    ("handshake", "round_trips", "words"),
    [
        (12.0, {"x": 0.0123}, "ok     host x answers in 12.3 ms, and shook hands 12 s ago"),
        (12.0, {"x": None}, "!!     host x does not answer, and shook hands 12 s ago"),
        (None, {"x": None}, "!!     host x does not answer, and never shook hands"),
        # By handshakes alone, where nothing can be asked from here.
        (12.0, {}, "ok     host x shook hands 12 s ago"),
        (200.0, {}, "!!     host x shook hands 200 s ago"),
    ],
)
def test_status_says_how_each_machine_is_reached(
    handshake: float | None,
    round_trips: dict[str, float | None],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    machines = {"x": handshake}
    now = status.Status("a", "Berlin", "vpn.example.com", "fd00::2/128", machines, round_trips, "reached", True, 5)
    monkeypatch.setattr(status, "look", lambda place, ask_machines: now)
    assert cli.show(Place(tmp_path), as_json=False) == 0
    assert f"  {words}" in capsys.readouterr().out.splitlines()


def test_one_worker_runs_at_a_time(tmp_path: Path) -> None:
    place = Place(tmp_path)
    lock = place.lock()
    with pytest.raises(HostError, match="end that one first"):
        place.check_idle()
    os.close(lock)
    place.check_idle()


def test_systemd_reads_the_unit_without_a_complaint_and_finds_it_shut_in(tmp_path: Path) -> None:
    place = Place(tmp_path / "host")
    place.directory.mkdir()
    place.environment_file.write_text("")
    (tmp_path / "units").mkdir()
    assert unit.install(place, Path(sys.executable), PROJECT, tmp_path / "units") is False  # no systemd runs here
    path = tmp_path / "units" / unit.NAME
    done = analyze("verify", path)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    done = analyze("security", "--offline=yes", f"--threshold={MOST_EXPOSED}", "--no-pager", path)
    assert done.returncode == 0, done.stdout[-3000:]


def test_worker_of_a_joined_machine_may_do_what_that_of_bin_run_may() -> None:
    assert privileges.TABLE["host"].capabilities == CAPABILITIES
    text = unit.text(Place(Path("/x")), Path("/opt/p/.venv/bin/python"), Path("/opt/p"))
    assert f"\nCapabilityBoundingSet={' '.join(f'CAP_{name.upper()}' for name in CAPABILITIES)}\n" in text
    assert "\nKillMode=process\n" in text


def test_no_crash_of_a_worker_leaves_a_core_file_with_keys_in_it() -> None:
    """However it was started: a worker in the foreground has no unit that says so."""
    command = [sys.executable, "-c", LIMITS_SET]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=HANGING, check=False)
    assert done.stdout.splitlines()[-1:] == ["True"], done.stderr
