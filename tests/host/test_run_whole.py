"""bin/run's runner for real: on a machine of its own, with a client that connects by the link it prints."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import ssl
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from tests.host import privileged
from tests.lab import HANGING, NEVER, ONE_TRY, PROJECT, PYTHON, Lab, Machine, Pinger, until
from tests.stack import WgPeer
from vpnproject.runner import files, front, processes, service
from vpnproject.runner.certificate import ensure_certificate, fingerprint
from vpnproject.runner.privileges import TABLE
from vpnproject.runner.processes import Process

pytestmark = pytest.mark.host

PROGRAMS = {"redis", "front", "web", "waiting", "gateway", "control", "keys", "beat", "host"}
# How each program is known in the list of processes: its own main process, not one of its workers.
KNOWN_BY = {
    "redis": "redis-server",
    "front": "master process",
    "web": "vpnproject.wsgi:application",
    "waiting": "vpnproject.wsgi_waiting:application",
    "gateway": "vpnproject.wsgi_gateway:application",
    "control": "control@",
    "keys": "keys@",
    "beat": "beat_alone",
    "host": "servers.hostnet",
}


# Ten processes start at once: of all that is waited for, the most work.
STARTED = 5 * HANGING
CAPABILITIES = ",".join(["-all", *(f"+{name.lower()}" for name in service.CAPABILITIES)])
# What the unit leaves writable; what else it names are file systems of their own in a lab.
READ_ONLY = """
for each in /run /tmp; do mount --rbind "$each" "$each" || exit; done
mount -o remount,bind,ro / && exec "$@"
"""
AS_A_SERVICE = (
    *("unshare", "--mount", "--propagation", "private", "sh", "-c", READ_ONLY, "sh"),
    *("setpriv", "--bounding-set", CAPABILITIES, "--inh-caps", "-all", "--no-new-privs"),
)


class Installation:
    """One ``var`` on one machine, and the runs on it."""

    def __init__(self, machine: Machine, directory: Path) -> None:
        self.machine = machine
        # Checkout and var are in a directory that root alone may enter, as below /root.
        self.checkout = directory / "checkout"
        self.checkout.mkdir()
        machine.run("mount", "--rbind", PROJECT, self.checkout)  # with what is mounted in it
        self.before = set(machine.processes())
        self.var = directory / "var"
        self.log = directory / "terminal"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str, before: Sequence[str] = ()) -> None:
        """Start it, as bin/run does after installing; ``before`` are words before its command."""
        self.log.write_bytes(b"")
        self.process = self.machine.start(
            *(
                *before,
                str(self.checkout / ".venv" / "bin" / "python"),
                "-m",
                "runner",
                "--var",
                str(self.var),
                *arguments,
            ),
            env={
                "PYTHONPATH": f"{self.checkout / 'vpnproject'}:{self.checkout}",
                "DJANGO_SETTINGS_MODULE": "nobody.reads_this",
            },
            log=self.log,
            cwd=self.checkout,
        )

    def started(self) -> None:
        """Wait until it says that all is up."""
        self.wait_for("Ctrl-C stops everything")

    def wait_for(self, words: str) -> None:
        def there() -> bool:
            assert self.process is not None
            return words in self.said() or self.process.poll() is not None

        until(there, timeout=STARTED, every=0.1)
        assert words in self.said(), self.said()

    def said(self) -> str:
        return self.log.read_text()

    def printed(self, pattern: str) -> str:
        found = re.search(pattern, self.said())
        assert found, self.said()
        return found[1]

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(HANGING)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        assert self.process.wait(HANGING) == 0, self.said()

    def instance(self) -> str:
        return (self.var / "instance").read_text().strip()

    def ours(self) -> list[Process]:
        return processes.marked(self.instance()) if (self.var / "instance").exists() else []

    def program(self, name: str) -> Process | None:
        """The main process of a program of ours: supervisor's own child."""
        supervisor = self.supervisor()
        found = [p for p in self.ours() if p.parent == supervisor and any(KNOWN_BY[name] in w for w in p.command)]
        return found[0] if found else None

    def supervisor(self) -> int:
        """Its pid, once that is written: a supervisor that has just been started makes the file first."""
        file = self.var / "supervisord.pid"
        return int(until(lambda: file.exists() and (text := file.read_text()).endswith("\n") and text))

    def get(self, path: str) -> tuple[int, bytes]:
        """GET from web; whoever answers must hold the certificate that bin/run made for this machine's address."""
        context = ssl.create_default_context(cafile=str(self.var / "certificate.pem"))
        connection = HTTPSConnection(self.machine.address, 443, timeout=HANGING, context=context)
        self.machine.call(connection.connect)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def assert_nothing_left(self) -> None:
        assert self.ours() == []
        assert set(self.machine.processes()) <= self.before
        assert "wgs" not in self.machine.ip("-brief", "link")
        assert "wgvpn" not in self.machine.run("nft", "list", "tables").stdout
        assert self.forwarding() == "0"

    def forwarding(self) -> str:
        return self.machine.run("cat", "/proc/sys/net/ipv4/ip_forward").stdout.strip()


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.fixture
def installation(lab: Lab) -> Iterator[Installation]:
    # Not pytest's own directory: sockets are in there, whose paths may not be long.
    directory = Path(tempfile.mkdtemp(prefix="vpn-run-"))
    made = Installation(lab.add_host(), directory)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()
    processes.end(made.ours(), made.instance() if made.ours() else "", grace=0)
    shutil.rmtree(directory)


def test_from_nothing_to_a_connected_client_and_back_to_nothing(installation: Installation, lab: Lab) -> None:
    machine = installation.machine
    assert installation.forwarding() == "0"
    installation.start()
    installation.started()

    # What it printed works: the page, the admin's sign-in with the one-time password, the link.
    assert f"Public address: {machine.address}" in installation.said()
    assert installation.get("/admin/login/")[0] == 200
    assert installation.get("/healthz") == (200, b"ok\n")
    # Its first sweep may be under way.
    until(lambda: installation.get("/readyz")[0] == 200)
    assert set(json.loads(installation.get("/readyz")[1])["checks"].values()) == {"ok"}
    short = installation.printed(r"/ku/(\w+)")
    assert installation.get(f"/k/{short}")[0] == 200
    assert sign_in(installation, installation.printed(r"one-time password (\w+)"))
    assert installation.printed(r"Import link\s+(\S+)") == f"pritunl://{machine.address}/ku/{short}"
    assert files.open_to_others(installation.var) == []

    client = WgPeer(lab.add_client(), installation.var.parent)
    client.add(f"pritunl://{machine.address}/ku/{short}")
    client.up()
    try:
        until(client.connected, every=0.2)
        gateway = installation_gateway(machine)
        assert client.machine.pings(gateway)
        only_tunnels_reach_gateway_web(client.machine, machine.address, gateway)
        every_process_is_as_the_table_says(installation)
        every_program_opens_what_the_table_says(installation)
        a_second_one_refuses(installation)

        # Every program that dies is started again.
        for name in sorted(PROGRAMS):
            dies_and_comes_back(installation, name)

        # A ping that met one of them dead may yet have the client reconnect: that comes first.
        back = time.time()
        until(lambda: client.connected().get("last_ping", 0) > back, every=0.2)
        reconnects = client.status()["reconnects"]

        # Killed itself, and started again: no tunnel so much as blinked.
        with Pinger(client.machine, gateway) as pinger:
            installation.kill()
            installation.start()
            installation.started()
        assert "still running; they go on" in installation.said()
        assert "one-time password" not in installation.said()
        assert client.connected()["reconnects"] == reconnects, client.log.read_text()
        assert pinger.lost == 0
    finally:
        client.end()

    installation.stop()
    installation.assert_nothing_left()

    # A second start from rest keeps everything.
    kept = secrets_of(installation.var)
    installation.start()
    installation.started()
    assert "one-time password" not in installation.said()
    assert secrets_of(installation.var) == kept
    installation.stop(signal.SIGTERM)
    installation.assert_nothing_left()


def secrets_of(var: Path) -> dict[str, bytes]:
    names = ("secret_key", "field_keys", "instance", "certificate.pem", "certificate_key.pem", "settings.env")
    return {name: (var / name).read_bytes() for name in names}


def sign_in(installation: Installation, password: str) -> bool:
    """Sign in to the admin as a browser does."""
    login = f"https://{installation.machine.address}/admin/login/"
    context = ssl.create_default_context(cafile=str(installation.var / "certificate.pem"))

    def browse() -> bool:
        opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), urllib.request.HTTPCookieProcessor()
        )
        page = opener.open(login, timeout=HANGING).read().decode()
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
        assert token
        form = f"csrfmiddlewaretoken={token[1]}&username=admin&password={password}&next=/admin/"
        request = urllib.request.Request(login, form.encode(), {"Referer": login})
        with opener.open(request, timeout=HANGING) as answer:
            return answer.status == 200 and not answer.url.startswith(login)

    return installation.machine.call(browse)


def installation_gateway(machine: Machine) -> str:
    """The tunnel's gateway address on the host."""
    found = re.search(r"inet ([0-9.]+)/", machine.ip("-4", "addr", "show", "dev", "wgs1"))
    assert found
    return found[1]


def only_tunnels_reach_gateway_web(client: Machine, outside: str, gateway: str) -> None:
    request = b"GET / HTTP/1.0\r\n\r\n"
    inside = client.ask_tcp(gateway, 9790, request)
    assert inside is not None
    assert b"404" in inside.split(b"\r\n")[0]
    assert client.ask_tcp(outside, 9790, request, timeout=NEVER) is None


def every_process_is_as_the_table_says(installation: Installation) -> None:
    """Also those that are not known by the mark, such as tunnels: whatever runs on this machine."""
    assert installation.process is not None
    names = {program.pid: name for name in PROGRAMS if (program := installation.program(name))}
    assert set(names.values()) == PROGRAMS
    starters = {installation.process.pid, installation.supervisor()}
    usual = privileged.niceness(installation.supervisor())
    found: set[str] = set()
    for pid in set(installation.machine.processes()) - installation.before:
        assert privileged.dumps_no_core(pid)
        if pid in starters:
            continue
        name = program_of(pid, names)
        assert privileged.may(pid) == privileged.as_the_table_says(name), name
        assert privileged.niceness(pid) == min(19, usual + TABLE[name].niceness), name
        found.add(name)
    assert found == PROGRAMS


def program_of(pid: int, names: dict[int, str]) -> str:
    """The program whose process it is, or descends from. A tunnel is nobody's child any more, and the host worker's."""
    while pid not in names:
        found = privileged.status(pid)
        if found["Name"] == "wireguard-go":
            return "host"
        pid = int(found["PPid"])
        assert pid, found
    return names[pid]


def every_program_opens_what_the_table_says(installation: Installation) -> None:
    where = installation.machine, installation.supervisor()
    for name, row in TABLE.items():
        opened = privileged.opened(*where, name, installation.var, installation.instance())
        assert opened == row.opens, name


def a_second_one_refuses(installation: Installation) -> None:
    second = installation.machine.run(
        *("env", f"PYTHONPATH={PROJECT / 'vpnproject'}", PYTHON, "-m", "runner", "--var", installation.var),
        check=False,
    )
    assert second.returncode == 1
    assert installation.process is not None
    assert f"running already (process {installation.process.pid})" in second.stdout


def dies_and_comes_back(installation: Installation, name: str) -> None:
    before = until(lambda: installation.program(name))
    assert before is not None, name
    workers = [process for process in installation.ours() if process.parent == before.pid]
    os.kill(before.pid, signal.SIGKILL)

    def replaced() -> bool:
        now = installation.program(name)
        return now is not None and now.pid != before.pid

    until(replaced, every=0.1)
    # What it left behind must go too: an old worker would go on answering.
    until(lambda: not set(workers) & set(installation.ours()), every=0.1)
    if name == "web":
        until(lambda: answers(installation), every=0.2)


def answers(installation: Installation) -> bool:
    try:
        return installation.get("/admin/login/")[0] == 200
    except OSError:
        return False


@pytest.mark.long
def test_when_supervisor_dies_all_is_started_anew(installation: Installation) -> None:
    """With no more rights than the service of systemd has, in a system that it cannot write to, and told no secret."""
    installation.start("--service", before=AS_A_SERVICE)
    installation.started()
    assert not re.search("one-time password|/ku/|/k/", installation.said())
    supervisor = installation.supervisor()
    first = installation.ours()
    os.kill(supervisor, signal.SIGKILL)
    installation.wait_for("supervisor died")
    until(lambda: not set(first) & set(installation.ours()), every=0.1)
    until(lambda: all(installation.program(name) for name in PROGRAMS), every=0.1)
    until(lambda: answers(installation), every=0.2)

    # Both killed: what they left holds the ports, and is ended by the next start.
    os.kill(installation.supervisor(), signal.SIGKILL)
    installation.kill()
    left = installation.ours()
    assert left
    installation.start("--public-address", "vpn.example.com")
    installation.started()
    assert not set(left) & set(installation.ours())
    assert "Certificate made anew: the public address changed" in installation.said()
    assert "API_URLS=https://vpn.example.com\n" in (installation.var / "settings.env").read_text()
    installation.stop()
    installation.assert_nothing_left()


@pytest.mark.long
def test_a_certificate_that_ends_soon_is_renewed_and_served_while_all_runs(installation: Installation) -> None:
    """Here one that was made long ago is put in the place of the good one."""
    installation.start()
    installation.started()
    front = installation.program("front")
    pair = installation.var / "certificate.pem", installation.var / "certificate_key.pem"
    long_ago = datetime.now(UTC) - timedelta(days=820)
    for path in pair:
        path.unlink()
    ensure_certificate(*pair, installation.machine.address, long_ago)
    old = fingerprint(pair[0])
    until(lambda: fingerprint(pair[0]) != old)

    def served() -> bool:
        try:
            return installation.get("/admin/login/")[0] == 200  # with the certificate that is in var, and no other
        except ssl.SSLError:
            return False

    until(served)
    assert installation.program("front") == front
    assert "The certificate was renewed; new connections get it" in installation.said()


@pytest.mark.long
def test_the_front_is_told_of_a_change_of_the_mesh_s_network_while_all_runs(installation: Installation) -> None:
    installation.start()
    installation.started()
    program = installation.program("front")
    file = front.configuration_file(front.directory(installation.instance()))

    def configured() -> str:
        return installation.machine.run("cat", file).stdout

    with closing(sqlite3.connect(installation.var / "database" / "db.sqlite3", timeout=HANGING)) as database, database:
        (before,) = database.execute("SELECT network FROM servers_mesh").fetchone()
        assert f"{before} 1;" in configured()
        database.execute("UPDATE servers_mesh SET network = '10.77.0.0/24'")
    installation.wait_for("The front was told of the mesh's network as it is now")
    assert "10.77.0.0/24 1;" in configured()
    assert before not in configured()
    assert installation.get("/admin/login/")[0] == 200
    assert installation.program("front") == program


@pytest.mark.long
def test_a_start_that_fails_leaves_running_what_ran(installation: Installation) -> None:
    installation.start()
    installation.started()
    installation.kill()
    running = {name: installation.program(name) for name in PROGRAMS}
    settings = installation.var / "settings.env"
    good = settings.read_text()
    settings.write_text(good + "CLOCK_WINDOW=soon\n")
    installation.start()
    assert installation.process is not None
    assert installation.process.wait(HANGING) == 1
    assert "CLOCK_WINDOW" in installation.said()
    assert "The programs of the earlier start go on" in installation.said()
    assert {name: installation.program(name) for name in PROGRAMS} == running
    assert answers(installation)

    settings.write_text(good)
    installation.start()
    installation.started()
    assert {name: installation.program(name) for name in PROGRAMS} == running
    installation.stop(signal.SIGHUP)
    installation.assert_nothing_left()


def test_stopped_in_the_middle_of_a_start_nothing_is_left(installation: Installation) -> None:
    installation.start()
    installation.wait_for("Redis answers")
    installation.stop()
    installation.assert_nothing_left()
    assert "Stopped." in installation.said()


def test_without_an_address_to_tell_clients_nothing_is_started(installation: Installation) -> None:
    for family in ("-4", "-6"):
        installation.machine.ip(family, "route", "del", "default")
    installation.start()
    assert installation.process is not None
    assert installation.process.wait(HANGING) == 1
    assert "--public-address" in installation.said()
    installation.assert_nothing_left()


def test_a_port_in_use_is_explained_with_its_holder(installation: Installation) -> None:
    holder = installation.machine.start("python3", "-m", "http.server", "443")
    try:
        until(lambda: installation.machine.ask_tcp("127.0.0.1", 443, b"GET / HTTP/1.0\r\n\r\n", ONE_TRY))
        installation.start("--port", "443")
        assert installation.process is not None
        assert installation.process.wait(HANGING) == 1
        assert f"held by python3 (pid {holder.pid})" in installation.said()
        installation.start()
        installation.wait_for("sync_hosts")
        assert f"Port 443 is held by python3 (pid {holder.pid})" in installation.said()
        installation.stop()
    finally:
        holder.kill()
        holder.wait(HANGING)
    installation.assert_nothing_left()
