"""A host and a client that have IPv6 alone on the outside: the API, the tunnel and both families within it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.conf import LazySettings

from servers.models import PortForward, Route
from tests.conftest import send_celery_to
from tests.host.test_end_to_end import World, build
from tests.lab import NEVER, ONE_TRY, Echo, Lab, RedisServer
from tests.processes import environment
from tests.stack import Stack

pytestmark = [pytest.mark.host, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def world(transactional_db: None, settings: LazySettings) -> Iterator[World]:
    with Lab() as lab, RedisServer() as server:
        settings.REDIS_URL = server.url
        send_celery_to(server.url)
        machine = lab.add_host()
        with Stack(machine, server, environment(), ipv6=True, name=f"[{machine.address6}]") as stack:
            yield build(lab, stack, public_address6=machine.address6)
            if stack.worker is not None:
                stack.worker.kill()


def test_a_host_with_ipv6_alone_serves_both_families_and_forwards_ports(world: World) -> None:
    host, lan = world.stack.machine, world.lan
    world.server.ipv6 = True
    world.server.save()
    Route.objects.create(server=world.server, network="2001:db8:50::/64", nat=True)
    user, peer = world.hire("alice")
    PortForward.objects.create(server=world.server, user=user, protocol="tcp", port=8080, to_port=7002)
    peer.machine.ip("-4", "addr", "flush", "dev", peer.machine.interface)
    peer.up()
    status = world.wait(peer.connected)
    assert isinstance(status, dict)
    assert status["endpoint"] == f"[{host.address6}]:51820"
    with Echo(lan, lan.address, 7000), Echo(lan, lan.address6, 7000), Echo(peer.machine, "::", 7002):
        world.reaches_lan(peer)
        answer = f"{lan_side(world)} hello".encode()
        world.wait(lambda: peer.machine.ask_tcp(lan.address6, 7000, timeout=ONE_TRY) == answer)
        # Each client's host part is the same in both families, and the network made from the IPv4 one.
        assert status["address"] == "10.9.0.2/24, fd56:504e:a09::2/64"
        assert peer.machine.pings("fd56:504e:a09::1")
        # From the internet to the client's port, by the host's only public address.
        assert world.lab.internet.ask_tcp(host.address6, 8080) is not None
        assert world.lab.internet.ask_tcp(host.address6, 8081, timeout=NEVER) is None
        peer.end()


def lan_side(world: World) -> str:
    """The host's own address on the LAN."""
    return world.lan.address6.rpartition("::")[0] + "::1"
