"""The whole product when the machine of its Redis or of its database dies: who is connected stays, and others can
connect again soon, by themselves and without a restart of anything."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from django.db import connections
from django.db.utils import ConnectionHandler

from core.postgresql.base import DatabaseWrapper
from tests.host.test_end_to_end import World, build
from tests.lab import HANGING, PROJECT, Echo, Lab, Pinger, PostgresPair, SentinelRedis, until
from tests.processes import environment
from tests.stack import Stack
from vpnproject.env import database
from wgpeers.models import Connection, State

pytestmark = [pytest.mark.host, pytest.mark.long, pytest.mark.django_db(transaction=True)]


@dataclass
class Stores:
    redis: SentinelRedis
    database: PostgresPair


@pytest.fixture
def pair(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresPair]:
    """A primary and a standby, which this test's own rows are on as well."""
    with PostgresPair() as made:
        monkeypatch.setenv("DATABASE_URL", made.socket_url)
        env = {**os.environ, **environment(), "DATABASE_URL": made.socket_url}
        migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
        subprocess.run(migrate, cwd=PROJECT, env=env, check=True, timeout=HANGING)
        config = ConnectionHandler({"default": database(made.directory)}).settings["default"]
        before, mine = connections["default"], DatabaseWrapper(config, "default")
        connections["default"] = mine
        try:
            yield made
        finally:
            mine.close()
            connections["default"] = before


@pytest.fixture
def stores(pair: PostgresPair) -> Iterator[tuple[World, Stores]]:
    env = {**environment(), "DATABASE_URL": pair.socket_url, "CONFIRM_TIMEOUT": "1"}
    with Lab() as lab:
        machine = lab.add_host()
        with SentinelRedis(machine, password="of-redis") as redis:
            stack = Stack(machine, redis, env)
            stack.environment |= env
            with stack:
                yield build(lab, stack), Stores(redis, pair)
                if stack.worker is not None:
                    stack.worker.kill()


def kill_redis(stores: Stores) -> None:
    stores.redis.kill(stores.redis.master())


def kill_database(stores: Stores) -> None:
    connections["default"].close()  # the test's own: it has no requests, between which others look at theirs
    stores.database.primary.kill()
    stores.database.promote()


@pytest.mark.parametrize("kill", [kill_redis, kill_database])
def test_clients_stay_and_new_ones_connect_again(stores: tuple[World, Stores], kill: Callable[[Stores], None]) -> None:
    world, parts = stores
    alice, alices = world.hire("alice")
    _, bobs = world.hire("bob")
    alices.up()
    world.wait(alices.connected)
    with Echo(world.lan, world.lan.address, 7000), Pinger(alices.machine, world.lan.address) as traffic:
        world.reaches_lan(alices)
        began = time.monotonic()
        kill(parts)
        bobs.up()
        world.wait(bobs.connected)
        print(f"{kill.__name__}: a new client is connected after {time.monotonic() - began:.1f} s")
        world.reaches_lan(bobs)
        # Longer than a connection lives without pings that count.
        until(lambda: time.monotonic() - began > 2 * 16 + 12, every=0.5)
        world.reaches_lan(alices)
        assert world.wait(lambda: live(world) == {"alice", "bob"})
    assert Connection.objects.filter(user=alice).count() == 1  # the very one
    assert traffic.lost == 0


def live(world: World) -> set[str]:
    rows = Connection.objects.filter(state=State.OPEN).values_list("user_name", flat=True)
    return {name.split()[0] for name in rows}
