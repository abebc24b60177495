"""The whole way of a repair: somebody damages a host, ``hostplan`` says what is amiss, and soon nothing is, the host's
row says when and what, and the client noticed nothing. With every process the real one."""

from __future__ import annotations

import subprocess
import time

import pytest

from core import clock
from servers.models import Host
from tests.host.test_end_to_end import World, running, world
from tests.lab import HANGING, PYTHON, Echo, Pinger

pytestmark = [pytest.mark.host, pytest.mark.long, pytest.mark.django_db(transaction=True)]

__all__ = ["running", "world"]


def hostplan(world: World, name: str) -> subprocess.CompletedProcess[str]:
    environment = [f"{key}={value}" for key, value in world.stack.environment.items()]
    command = (PYTHON, "manage.py", "hostplan", name, f"--timeout={HANGING:g}")
    return world.stack.machine.run("env", *environment, *command, check=False)


def test_damage_is_shown_by_hostplan_and_repaired_by_itself(world: World) -> None:
    machine = world.stack.machine
    _, peer = world.hire("alice")
    peer.up()
    world.wait(peer.connected)
    interface = world.server.interface
    said = "gate: nothing to do. It has what is wanted of it.\n"
    world.wait(lambda: hostplan(world, "gate").stdout == said)
    assert hostplan(world, world.host.public_id).stdout == said
    unknown = hostplan(world, "nowhere")
    assert unknown.returncode != 0
    assert "There are: gate." in unknown.stderr

    with Pinger(peer.machine, "10.9.0.1") as pinger:
        # Nothing that the client's own packets need: it is to notice neither the damage nor the repair.
        machine.ip("addr", "add", "10.99.0.1/24", "dev", interface)
        machine.run("nft", "flush", "chain", "inet", "wgvpn", "postrouting")
        damaged = time.time()
        plan = hostplan(world, "gate").stdout
        if plan != said:  # the repair may have come first
            assert plan.splitlines() == [
                "the nftables table: write it anew",
                f"{interface}: remove address 10.99.0.1/24",
            ]
        world.wait(lambda: Host.objects.get(pk=world.host.pk).drift)
        with Echo(world.lan, world.lan.address, 7000):
            world.reaches_lan(peer)  # by masquerading, which was gone
    host = Host.objects.get(pk=world.host.pk)
    assert host.drift.splitlines() == [
        "the nftables table was changed or removed",
        f"{interface}: address 10.99.0.1/24 was added",
    ]
    assert host.drift_at is not None
    assert damaged <= host.drift_at.timestamp() <= clock.now() + 1
    assert "10.99.0.1" not in machine.ip("addr")
    assert pinger.lost == 0

    assert world.stack.worker is not None
    world.stack.worker.kill()
    world.wait(lambda: "gate gives no plan: it is silent." in hostplan(world, "gate").stderr)
