"""Machines join an installation by the real command: WireGuard between them, Redis through it, nothing beside it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.conf import LazySettings

from servers.models import MeshNode
from tests.host.joined import Installation, installation
from tests.lab import NEVER

pytestmark = [pytest.mark.host, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def world(transactional_db: None, settings: LazySettings) -> Iterator[Installation]:
    with installation(settings) as world:
        yield world


def test_machines_join_and_reach_redis_and_each_other_through_the_mesh_alone(world: Installation) -> None:
    berlin, paris = world.add("Berlin"), world.add("Paris")
    control = world.stack.machine
    assert "wgm0" not in control.ip("link")  # nobody has joined
    world.join(berlin)
    world.join(paris)
    redis_port = 9791
    at_control = world.address(world.control)
    for each in (berlin, paris):
        # The mesh address is that of the machine's row, and every other machine answers at its own.
        status = each.status()
        assert status["green"] is True, status
        assert status["mesh"] == f"{world.address(each.host)}/128"
        assert each.machine.ask_tcp(at_control, redis_port, b"PING\r\n") == b"-NOAUTH Authentication required.\r\n"
        assert each.machine.pings(at_control)
        # On no public address, and on none of another service.
        for address in (control.address, control.address6):
            assert each.machine.ask_tcp(address, redis_port, timeout=NEVER) is None
        assert each.machine.ask_tcp(at_control, 443, timeout=NEVER) is None
    world.wait(lambda: berlin.machine.pings(world.address(paris.host), timeout=1))
    assert MeshNode.objects.count() == 3
