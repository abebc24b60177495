"""A host dies while something else is amiss as well: its clients find another one all the same, and once all is back
nothing is double."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.db import connections

from core import clock
from servers import heartbeats
from servers.models import Host, Server, ServerHost
from tests.endurance import stepped_clock
from tests.failover import FAR6, Gate, Traffic, World
from tests.host.test_end_to_end import PING_INTERVAL
from tests.host.test_failover_of_stores import pair
from tests.host.test_net_failover import API, connect, moved, world, world_of
from tests.lab import PostgresPair
from tests.processes import environment
from tests.stack import WgPeer
from users.models import VpnUser
from wgpeers.lifecycle import liveness
from wgpeers.models import Connection, State

__all__ = ["pair", "world"]  # fixtures

pytestmark = [pytest.mark.host, pytest.mark.long, pytest.mark.django_db(transaction=True)]

# Seconds by which clocks may differ: a little less than a minute, for what lies between two looks at them.
OFF = 55


def gates_in_turn(world: World, count: int) -> tuple[Server, list[Gate]]:
    """A server on so many hosts, of which clients get the first that lives."""
    server = world.server(1, PING_INTERVAL)
    gates = [world.add_gate(server) for _ in range(count)]
    for priority, gate in enumerate(gates, 1):
        ServerHost.objects.filter(host=gate.row).update(priority=priority)
    return server, gates


def follows(world: World, traffic: Traffic, user: VpnUser, to: Gate, before: Connection) -> Connection:
    """Wait until their traffic goes by ``to``, with the address of before; the new connection."""
    world.wait(lambda: traffic.carrier() == to.machine.address)
    assert moved(world, user, before, to)
    return world.live(user)


def gave_up(peer: WgPeer) -> bool:
    return "asking again" in str(peer.status().get("message"))


def test_two_hosts_die_one_after_the_other_without_workers_and_then_one_without_redis(world: World) -> None:
    server, (first, second, third) = gates_in_turn(world, 3)
    user, peer = world.hire(server, "alice")
    connect(world, peer)
    rows = [world.live(user)]
    with Traffic(peer) as traffic, Traffic(peer, FAR6) as six:
        assert traffic.carrier() == first.machine.address
        for part in ("control", "beat"):
            world.stack.kill(part)
        for dying, living in ((first, second), (second, third)):
            dying.kill()
            rows.append(follows(world, traffic, user, living, rows[-1]))
            assert six.carrier() == living.machine.address6
        for part in ("control", "beat"):
            world.stack.start_again(part)
        first.start()
        world.wait(first.takes_clients)
        # Nobody can connect without Redis; those who are connected notice nothing.
        world.redis.kill()
        assert traffic.carrier() == third.machine.address
        third.kill()
        world.wait(lambda: gave_up(peer))
        world.redis.start()
        rows.append(follows(world, traffic, user, first, rows[-1]))
        # Both are back, and have nobody.
        for gate in (second, third):
            gate.start()
        for gate in (second, third):
            world.wait(gate.takes_clients)
        world.wait(lambda: [peers_on(gate) for gate in (first, second, third)] == [1, 0, 0])
        assert traffic.carrier() == first.machine.address
    assert ended_as_replaced(rows)
    peer.end()


def peers_on(gate: Gate) -> int:
    return len(gate.machine.run("wg", "show", "all", "peers").stdout.split("\n")) - 1


def ended_as_replaced(rows: list[Connection]) -> bool:
    """All but the last of them, which is open, and there is no other one."""
    found = list(Connection.objects.order_by("pk"))
    assert found == rows
    assert [row.state for row in found] == [*[State.ENDED] * (len(rows) - 1), State.OPEN]
    return {row.end_reason for row in found[:-1]} == {"replaced"}


@pytest.fixture
def with_postgresql(pair: PostgresPair, settings: LazySettings) -> Iterator[World]:
    with world_of(settings, API, {**environment(), "DATABASE_URL": pair.socket_url}) as made:
        yield made


def test_host_dies_while_the_database_is_away(with_postgresql: World, pair: PostgresPair) -> None:
    world = with_postgresql
    server, (first, second) = gates_in_turn(world, 2)
    user, peer = world.hire(server, "alice")
    connect(world, peer)
    before = world.live(user)
    with Traffic(peer) as traffic:
        assert traffic.carrier() == first.machine.address
        connections["default"].close()  # the test's own
        pair.primary.kill()
        first.kill()
        world.wait(lambda: gave_up(peer))
        pair.promote()
        world.wait(lambda: traffic.carrier() == second.machine.address)
        world.wait(lambda: moved(world, user, before, second))
    assert ended_as_replaced([before, world.live(user)])
    peer.end()


def test_clocks_that_differ_by_a_minute_do_no_harm_and_are_shown(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One host's is ahead, the other one's and the client's are behind; each with all of its programs."""
    server = world.server(1, PING_INTERVAL)
    gates = []
    for off in (OFF, -OFF):
        with monkeypatch.context() as within:
            within.setenv("PYTHONPATH", clock_off_by(tmp_path / f"clock{off}", off))
            gates.append(world.add_gate(server))
    first, second = gates
    ServerHost.objects.filter(host=second.row).update(priority=2)
    user, peer = world.hire(server, "alice")
    with monkeypatch.context() as within:
        within.setenv("PYTHONPATH", clock_off_by(tmp_path / "clock of the client", -OFF))
        connect(world, peer)
    assert (shown(first.row), shown(second.row)) == ("ahead", "behind")
    before = world.live(user)
    with Traffic(peer) as traffic:
        assert traffic.carrier() == first.machine.address
        # Pings count on either.
        pings_count(world, before)
        assert world.live(user) == before
        first.kill()
        after = follows(world, traffic, user, second, before)
        pings_count(world, after)
        assert world.live(user) == after
    assert ended_as_replaced([before, after])
    peer.end()


def clock_off_by(directory: Path, seconds: float) -> str:
    """What PYTHONPATH is to be, so that a program's clock is ahead by ``seconds``."""
    directory.mkdir()
    stepped_clock.set_ahead(directory / "clock", seconds)
    (directory / "sitecustomize.py").write_text(stepped_clock.line_for(directory / "clock"))
    return os.pathsep.join([str(directory), *filter(None, [os.environ.get("PYTHONPATH", "")])])


def pings_count(world: World, connection: Connection) -> None:
    """Each moves the deadline, which nobody's clock makes shorter by more than it is off."""

    def deadline() -> float:
        return liveness.deadlines([connection.public_id])[connection.public_id]

    assert connection.server is not None
    timeout = connection.server.ping_timeout
    world.wait(lambda: deadline() > time.time() + timeout - 60)
    first = deadline()
    world.wait(lambda: deadline() > first + PING_INTERVAL)


def shown(host: Host) -> str:
    """What the host's page says of its clock."""
    said = heartbeats.conditions(host, heartbeats.read([host])[host.pk], clock.now())
    (text,) = [each["text"] for each in said if each["code"] == "clock_off"]
    return next(word for word in ("ahead", "behind") if f"seconds {word}" in text)
