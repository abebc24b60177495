"""A server on three hosts gets a newer release while clients are connected: one host after the other is drained, its
worker started anew, and takes clients again. And a worker of the release before, told what it does not know."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import LazySettings

from core import clock
from servers import heartbeats, services
from servers.hostnet.state.conditions import Code
from servers.hostnet.state.version import FORMAT, VERSION
from servers.models import Host, ServerHost
from tests.failover import Gate, World
from tests.host.test_end_to_end import PING_INTERVAL
from tests.host.test_net_failover import API, world_of
from tests.lab import PROJECT, Pinger
from tests.stack import WgPeer
from users.models import VpnUser
from wgpeers.models import Connection, EndReason, State

pytestmark = [pytest.mark.host, pytest.mark.long, pytest.mark.django_db(transaction=True)]

NEWER = "99.0.0"
GATEWAY = "10.9.1.1"


@pytest.fixture
def world(transactional_db: None, settings: LazySettings) -> Iterator[World]:
    with world_of(settings, API) as made:
        yield made


def release(directory: Path, version: str, format_: int) -> Path:
    """The host's side as another release has it."""
    hostnet = directory / version / "servers" / "hostnet"
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "servers" / "hostnet", hostnet, ignore=skip)
    shutil.copy(PROJECT / "servers" / "__init__.py", hostnet.parent)
    file = hostnet / "state" / "version.py"
    text = file.read_text().replace(f'VERSION = "{VERSION}"', f'VERSION = "{version}"')
    file.write_text(re.sub(r"(?m)^FORMAT = \d+$", f"FORMAT = {format_}", text))
    return directory / version


def beat(gate: Gate) -> dict[str, object]:
    return dict(heartbeats.read([gate.row]).get(gate.row.pk, {}))


def is_told(gate: Gate) -> bool:
    """Whether its present worker has carried out a full state."""
    row = Host.objects.get(pk=gate.row.pk)
    said = beat(gate)
    return bool(row.boot) and said.get("boot") == row.boot and said.get("version") == row.applied_version != 0


def runs(world: World, gate: Gate, version: str) -> None:
    """Wait until its worker is of that release, and knows what the host is to be."""
    world.wait(lambda: beat(gate).get("worker") == version and is_told(gate))


def connect_to(world: World, gate: Gate, name: str) -> tuple[VpnUser, WgPeer]:
    """A client whose first connection is there."""
    server = ServerHost.objects.get(host=gate.row).server
    ServerHost.objects.exclude(host=gate.row).update(priority=2)
    user, peer = world.hire(server, name)
    peer.up()
    world.wait(peer.connected)
    ServerHost.objects.update(priority=1)
    assert world.live(user).host_id == gate.row.pk
    return user, peer


def is_connected(user: VpnUser) -> bool:
    return Connection.objects.filter(user=user, state=State.OPEN).exists()


def test_three_hosts_are_upgraded_one_after_the_other_and_nobody_loses_more_than_their_move(
    world: World, tmp_path: Path
) -> None:
    server = world.server(1, PING_INTERVAL)
    gates = [world.add_gate(server) for _ in range(3)]
    people = [connect_to(world, gate, name) for gate, name in zip(gates, ("alice", "bob", "carol"), strict=True)]
    first = {user.pk: world.live(user).address for user, _ in people}
    newer = release(tmp_path, NEWER, FORMAT)
    moves = 0
    for gate in gates:
        there = {user.pk for user, _ in people if world.live(user).host_id == gate.row.pk}
        assert there
        moves += len(there)
        with contextlib.ExitStack() as watched:
            others = [peer for user, peer in people if user.pk not in there]
            traffic = [watched.enter_context(Pinger(peer.machine, GATEWAY)) for peer in others]
            upgrade(world, gate, newer)
            # Who was sent away may still be on the way to another one.
            world.wait(lambda: all(is_connected(user) for user, _ in people))
        assert [each.lost for each in traffic] == [0] * len(others)
    assert {beat(gate)["worker"] for gate in gates} == {NEWER}
    for user, peer in people:
        rows = Connection.objects.filter(user=user)
        ended = rows.exclude(state=State.OPEN)
        assert {row.address for row in rows} == {first[user.pk]}
        assert set(ended.values_list("end_reason", flat=True)) <= {EndReason.DRAINED.value}
        assert peer.status()["reconnects"] == ended.count()
        assert peer.machine.pings(GATEWAY)
    assert Connection.objects.exclude(state=State.OPEN).count() == moves
    is_only_restarted(world, gates, people)
    for _, peer in people:
        peer.end()


def upgrade(world: World, gate: Gate, newer: Path) -> None:
    """As docs/MANY_HOSTS.md says."""
    services.drain(Host.objects.get(pk=gate.row.pk))
    world.wait(lambda: not Connection.objects.filter(host=gate.row, state=State.OPEN).exists())
    gate.worker.end()
    gate.worker.start(newer)
    runs(world, gate, NEWER)
    services.take_clients(Host.objects.get(pk=gate.row.pk))
    world.wait(gate.takes_clients)
    world.wait(lambda: is_told(gate))


def is_only_restarted(world: World, gates: list[Gate], people: list[tuple[VpnUser, WgPeer]]) -> None:
    """Without being drained, as a repair may want it: nobody moves, and no packet is lost."""
    before = [world.live(user) for user, _ in people]
    with contextlib.ExitStack() as watched:
        traffic = [watched.enter_context(Pinger(peer.machine, GATEWAY)) for _, peer in people]
        for gate in gates:
            gate.worker.end()
            assert ": wgs" in gate.machine.ip("link", "show", "up")
        for gate in gates:
            gate.worker.start()
            runs(world, gate, VERSION)
    assert [each.lost for each in traffic] == [0] * len(people)
    assert [world.live(user) for user, _ in people] == before


def test_worker_of_the_release_before_refuses_in_words_and_keeps_whom_it_has(world: World, tmp_path: Path) -> None:
    """The control side was upgraded first, and says what such a worker would carry out wrongly."""
    server = world.server(1, PING_INTERVAL)
    old, other = world.add_gate(server), world.add_gate(server)
    user, peer = connect_to(world, old, "alice")
    before = world.live(user)
    with Pinger(peer.machine, GATEWAY) as traffic:
        old.worker.end()
        old.worker.start(release(tmp_path, "0.0.1", FORMAT - 1))
        world.wait(lambda: beat(old).get("worker") == "0.0.1")
        found = heartbeats.conditions(Host.objects.get(pk=old.row.pk), beat(old), clock.now())
        assert Code.WORKER_OUTDATED in {each["code"] for each in found}
        refused = f"refused: a message of format {FORMAT}, and this worker knows {FORMAT - 1} at most"
        world.wait(lambda: refused in old.log.read_text())
        # Who would come to it is on another host within the same request.
        ServerHost.objects.filter(host=other.row).update(priority=2)
        bob, his = world.hire(server, "bob")
        his.up()
        world.wait(his.connected)
        assert world.live(bob).host_id == other.row.pk
        old.worker.end()
        old.worker.start()
        world.wait(lambda: is_told(old))
    assert traffic.lost == 0
    assert world.live(user) == before
    assert peer.status()["reconnects"] == 0
    for each in (peer, his):
        each.end()
