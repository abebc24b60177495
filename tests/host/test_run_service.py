"""bin/run as a service, by systemd itself: installed, started, killed, restarted, booted again, and removed."""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.booted import Booted
from tests.host.test_run_whole import STARTED
from tests.lab import PROJECT, Lab, Pinger, until
from tests.stack import WgPeer
from vpnproject.runner import service

pytestmark = [pytest.mark.host, pytest.mark.long]

RUN = PROJECT / "bin" / "run"
VAR = Path("/srv/vpn")
GATEWAY = "10.9.0.1"
# Its last line of a start, also where a host takes longer on a busy machine than bin/run waits for it.
ALL_STARTED = "Ctrl-C stops everything"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.fixture
def host(lab: Lab) -> Iterator[Booted]:
    made = Booted(lab)
    try:
        made.boot()
        yield made
    finally:
        made.close()


@pytest.fixture
def client(lab: Lab) -> Iterator[WgPeer]:
    with tempfile.TemporaryDirectory(prefix="vpn-service-") as directory:
        made = WgPeer(lab.add_client(), Path(directory))
        yield made
        made.end()


def test_the_service_outlives_crashes_and_boots_and_leaves_nothing(host: Booted, client: WgPeer) -> None:
    link = first_by_hand(host, client.directory.parent / "terminal")
    said = host.run(RUN, "--install-service", "--var", VAR).stdout
    assert f"systemctl enable {service.NAME}" in said
    host.run("systemctl", "start", service.NAME)
    until(lambda: ups(host), timeout=STARTED, every=0.5)
    client.add(link)
    client.up()
    pinged_since(client, 0.0)
    no_secret_in_the_journal(host)

    killed_it_is_started_again_and_tunnels_go_on(host, client)
    restarted_clients_are_back(host, client)
    for switch_off in (by_reboot, Booted.cut_power):
        switch_off(host)
        off = time.time()
        host.boot()
        pinged_since(client, off)

    host.run(RUN, "--uninstall-service")
    nothing_is_left(host)
    by_reboot(host)
    host.boot()
    nothing_is_left(host)


def first_by_hand(host: Booted, terminal: Path) -> str:
    """Start it at a terminal, where it says the import link, and stop it."""
    process, link = started_by_hand(host, terminal)
    Booted.interrupt(process)
    return link


def started_by_hand(host: Booted, terminal: Path) -> tuple[subprocess.Popen[bytes], str]:
    process = host.start(RUN, "--var", VAR, log=terminal)
    until(lambda: ALL_STARTED in terminal.read_text() or process.poll() is not None, timeout=STARTED, every=0.2)
    said = terminal.read_text()
    assert ALL_STARTED in said, said
    link = re.search(r"Import link\s+(\S+)", said)
    assert link, said
    return process, link[1]


def pinged_since(client: WgPeer, moment: float) -> None:
    """Wait until it is connected, its gateway answers, and gateway web has."""
    until(lambda: client.connected().get("last_ping", 0) > moment, timeout=STARTED, every=0.5)
    assert client.machine.pings(GATEWAY)


def no_secret_in_the_journal(host: Booted) -> None:
    said = host.run("journalctl", "--unit", service.NAME).stdout
    assert ALL_STARTED in said
    assert "/ku/" not in said
    assert "one-time password" not in said


def killed_it_is_started_again_and_tunnels_go_on(host: Booted, client: WgPeer) -> None:
    before = main_pid(host)
    with Pinger(client.machine, GATEWAY) as pinger:
        host.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", service.NAME)
        until(lambda: main_pid(host) not in {before, "0"}, every=0.5)
        until(lambda: ups(host) > 1, timeout=STARTED, every=0.5)
    assert pinger.lost == 0


def restarted_clients_are_back(host: Booted, client: WgPeer) -> None:
    host.run("systemctl", "restart", service.NAME)
    pinged_since(client, time.time())


def by_reboot(host: Booted) -> None:
    host.run("systemctl", "reboot", check=False)
    assert host.ended() == -signal.SIGHUP


def main_pid(host: Booted) -> str:
    return host.run("systemctl", "show", "--property=MainPID", "--value", service.NAME).stdout.strip()


def ups(host: Booted) -> int:
    """How often it said so, in this boot."""
    return host.run("journalctl", "--boot", "--unit", service.NAME).stdout.count(ALL_STARTED)


def nothing_is_left(host: Booted) -> None:
    assert host.run("systemctl", "is-enabled", service.NAME, check=False).returncode
    assert "wgs" not in host.run("ip", "-brief", "link").stdout
    assert "wgvpn" not in host.run("nft", "list", "tables").stdout
    assert not host.run("pgrep", "--list-full", "--full", f"{VAR}|servers.hostnet|wireguard-go", check=False).stdout
