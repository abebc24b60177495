"""Machines join where Redis is somebody else's, watched by Sentinels, and outlive the death of its master."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
import redis
from django.conf import LazySettings

from servers.models import MeshNode
from tests.host.joined import Installation, installation
from tests.lab import NEVER, Lab, SentinelRedis

pytestmark = [pytest.mark.host, pytest.mark.long, pytest.mark.django_db(transaction=True)]


def elsewhere(lab: Lab) -> SentinelRedis:
    machine = lab.add_host()
    password, own = secrets.token_urlsafe(12), secrets.token_urlsafe(12)
    return SentinelRedis(machine, password, own, address=machine.address)


@pytest.fixture
def world(transactional_db: None, settings: LazySettings) -> Iterator[Installation]:
    with installation(settings, elsewhere) as world:
        yield world


def test_a_machine_joins_by_the_command_and_goes_on_by_the_next_master(world: Installation) -> None:
    stores = world.stack.redis
    assert isinstance(stores, SentinelRedis)
    berlin = world.add("Berlin")
    world.join(berlin)
    assert MeshNode.objects.count() == 2
    # It knows the Sentinels, and neither password of the control side's.
    env = (berlin.directory / "host.env").read_text()
    assert f"HOST_REDIS_URL=sentinel://host.{berlin.host.public_id}:" in env
    assert not [word for word in stores.passwords if word in env]
    # The mesh is there all the same, and nothing of Redis in it.
    assert berlin.machine.pings(world.address(world.control))
    assert berlin.machine.ask_tcp(world.address(world.control), 9791, timeout=NEVER) is None
    worker, first = berlin.worker, stores.master()
    stores.kill(first)
    world.wait(lambda: stores.master() != first and tell(stores).ping())
    world.wait(lambda: berlin.status().get("green"))
    assert worker is not None
    assert worker.poll() is None
    # Deleted, it is unknown to every one of them.
    berlin.end()
    done = berlin.tell("leave")
    assert "The control side was told" in done.stdout, done.stdout
    name = f"host.{berlin.host.public_id}"
    world.wait(lambda: not MeshNode.objects.filter(host=berlin.host).exists())
    world.wait(lambda: name not in tell(stores).acl_users())
    for port in stores.sentinel_ports:
        world.wait(lambda port=port: name not in stores.to_sentinel(port).acl_users())


def tell(stores: SentinelRedis) -> redis.Redis:
    return stores.client()
