"""bin/run's runner while one disk after the other takes nothing, and while programs hang: who is connected stays, and
all recovers by itself."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.test_run_whole import PROGRAMS, Installation, installation_gateway
from tests.lab import PYTHON, Disk, Lab, Pinger, until
from tests.stack import WgPeer
from vpnproject.runner import processes

pytestmark = [pytest.mark.host, pytest.mark.long]


TWO_DEVICES = "from servers.models import Server; Server.objects.update(multi_device=True)"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.fixture
def directory() -> Iterator[Path]:
    # Not pytest's own: sockets are in there, whose paths may not be long.
    made = Path(tempfile.mkdtemp(prefix="vpn-run-"))
    yield made
    shutil.rmtree(made)


def test_while_a_disk_is_full_clients_stay_and_afterwards_all_recovers(lab: Lab, directory: Path) -> None:
    machine = lab.add_host()
    var = directory / "var"
    disks = {}
    # Everything but logs and Redis is on the first one, the database above all.
    for name, path, size in (("database", var, "512m"), ("log", var / "log", "8m"), ("redis", var / "redis", "8m")):
        machine.run("mkdir", path)
        disks[name] = Disk(machine, path, size=size, inodes=20000)
    installation = Installation(machine, Path(f"/proc/{machine.pid}/root{directory}"))
    one, two = (WgPeer(lab.add_client(), directory) for _ in range(2))
    installation.start()
    try:
        installation.started()
        # What a start wants to see free need not be filled.
        machine.run("mount", "-o", "remount,size=64m", var)
        environment = [f"VPN_VAR={var}", "DJANGO_SETTINGS_MODULE=vpnproject.settings"]
        machine.run("env", "--unset=DATABASE_URL", *environment, PYTHON, "manage.py", "shell", "-c", TWO_DEVICES)
        link = installation.printed(r"Import link\s+(\S+)")
        one.add(link)
        two.add(link)
        one.up()
        until(one.connected, every=0.2)
        with Pinger(one.machine, installation_gateway(machine)) as pinger:
            for name, disk in disks.items():
                disk.fail("full")
                installation.wait_for(f"The disk of {disk.path} is full")
                fails(installation, one, two, name, link)
                disk.recover("full")
                installation.wait_for(f"No more so: The disk of {disk.path}")
                recovers(installation, one, two)
            hang_and_are_replaced(installation, "beat", "control")
            assert one.connected()["reconnects"] == 0
        assert pinger.lost == 0
        installation.stop()
    finally:
        print(installation.said())
        print(machine.run("sh", "-c", f"tail -n 30 {var}/log/*.log").stdout)
        for client in (one, two):
            print(client.log.read_text() if client.log.exists() else "")
            client.end()
        processes.end(installation.ours(), installation.instance(), grace=0)
    installation.assert_nothing_left()


def fails(installation: Installation, one: WgPeer, two: WgPeer, name: str, link: str) -> None:
    if name == "log":
        before = until(lambda: installation.program("control"))
        assert before is not None
        os.kill(before.pid, signal.SIGKILL)
        until(lambda: installation.program("control") not in (None, before), every=0.2)
    else:
        if name == "redis":  # of the database a page that was opened before needs nothing written
            until(lambda: installation.get(f"/k/{link.rpartition('/')[2]}")[0] == 503, every=0.5)
        two.up()
        until(lambda: "answered with status 503" in str(two.status()), every=0.5)
        assert not two.connected()
        two.end()
    now = time.time()
    until(lambda: one.connected().get("last_ping", 0) > now + 20, every=0.5)
    assert one.connected()["reconnects"] == 0


def recovers(installation: Installation, one: WgPeer, two: WgPeer) -> None:
    two.up()
    until(two.connected, every=0.5)
    two.end()
    assert one.connected()["reconnects"] == 0
    until(lambda: all(installation.program(name) for name in PROGRAMS), every=0.5)


def hang_and_are_replaced(installation: Installation, *names: str) -> None:
    hung = [process for name in names if (process := installation.program(name))]
    assert len(hung) == len(names)
    for process in hung:
        os.kill(process.pid, signal.SIGSTOP)
    for name in names:
        installation.wait_for(f"{name} has shown no sign of life")
    until(lambda: not set(hung) & set(installation.ours()), every=0.2)
    until(lambda: all(installation.program(name) for name in names), every=0.2)
