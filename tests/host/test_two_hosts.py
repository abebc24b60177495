"""One server on two hosts, everything real: where clients go, what moves with them, and hosts that are emptied."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from django.conf import LazySettings
from django.test import Client

from servers import services
from servers.models import ClientNetwork, Host, Server, ServerHost
from tests.admin_site import staff
from tests.conftest import send_celery_to
from tests.dnsclient import NOERROR, Answer, lookup
from tests.host import test_end_to_end as one_host
from tests.lab import NEVER, ONE_TRY, Lab, Machine, Pinger, RedisServer
from tests.processes import environment
from tests.stack import HostWorker, Stack, WgPeer
from users.models import VpnUser
from wgpeers.models import Connection, State

pytestmark = [pytest.mark.host, pytest.mark.long, pytest.mark.django_db(transaction=True)]

# Where the API answers: no host's own address, so that no client asks for one of them.
API = "198.51.100.201"
GATEWAY = "10.9.0.1"


@dataclass
class World(one_host.World):
    second: Host
    workers: dict[int, HostWorker]  # by host
    machines: dict[int, Machine]

    def prefer(self, host: Host) -> None:
        """New clients go there while it takes any."""
        ServerHost.objects.exclude(host=host).update(priority=2)
        ServerHost.objects.filter(host=host).update(priority=1)

    def is_on(self, user: VpnUser, host: Host) -> bool:
        found = self.live(user)
        return found is not None and found.host_id == host.pk

    def shown(self, host: Host, what: str) -> str:
        """``wg show`` of the server's interface there."""
        return self.machines[host.pk].run("wg", "show", self.server.interface, what).stdout

    def has_peer(self, host: Host, connection: Connection) -> bool:
        return connection.wg_public_key in self.shown(host, "peers")

    def knows(self, peer: WgPeer, user: VpnUser) -> bool:
        """Whether the DNS of the host that ``peer`` is on has ``user`` with the address that they have."""
        live = self.live(user)
        name = f"{user.name}.{self.organization.name.lower().replace(' ', '-')}.vpn"
        expected = Answer(NOERROR, frozenset([live.address])) if live is not None else None
        return lookup(peer.machine, GATEWAY, name, timeout=ONE_TRY) == expected


@pytest.fixture
def world(transactional_db: None, settings: LazySettings) -> Iterator[World]:
    with contextlib.ExitStack() as closing:
        lab, redis = closing.enter_context(Lab()), closing.enter_context(RedisServer())
        settings.REDIS_URL = redis.url
        send_celery_to(redis.url)
        first, second = lab.add_host(), lab.add_host()
        first.ip("addr", "add", f"{API}/24", "dev", "wan")
        stack = closing.enter_context(Stack(first, redis, environment(), name=API))
        closing.enter_context(Stack(second, redis, environment(), name=API, pings_only=True))
        base = one_host.build(lab, stack)
        Server.objects.update(dns_mapping=True)
        assert stack.worker is not None
        other = Host.objects.create(name="gate-2", public_address=second.address)
        worker = HostWorker(second, other.public_id, redis.url, stack.directory)
        closing.callback(worker.kill)
        closing.callback(stack.worker.kill)
        workers, machines = {base.host.pk: stack.worker, other.pk: worker}, {base.host.pk: first, other.pk: second}
        made = World(**vars(base), second=other, workers=workers, machines=machines)
        ServerHost.objects.create(server=base.server, host=other, priority=2)
        worker.start()
        made.wait(lambda: not ServerHost.objects.filter(public_key="").exists())
        try:
            yield made
        except BaseException:
            print(stack.log())
            raise


def test_names_addresses_and_tunnels_move_with_clients_and_a_host_is_emptied(world: World) -> None:
    first, second = world.host, world.second
    (alice, laptop), (bob, phone) = world.hire("alice"), world.hire("bob")
    laptop.up()
    world.wait(laptop.connected)
    world.prefer(second)
    phone.up()
    world.wait(phone.connected)
    assert world.is_on(alice, first)
    assert world.is_on(bob, second)
    # Each is known on the other's host.
    world.wait(lambda: world.knows(laptop, bob))
    world.wait(lambda: world.knows(phone, alice))

    # Alice's client dies, and starts again while its connection is still open: elsewhere, with the same address.
    before = world.live(alice)
    assert before is not None
    laptop.kill()
    laptop.up()
    world.wait(lambda: world.is_on(alice, second) and laptop.connected())
    after = world.live(alice)
    assert after is not None
    assert (after.address, after.pk != before.pk) == (before.address, True)
    world.wait(lambda: not world.has_peer(first, before))
    assert world.has_peer(second, after)
    assert laptop.machine.pings(world.live(bob).address)  # type: ignore[union-attr]
    world.wait(lambda: world.knows(phone, alice))

    # The second host is emptied: nobody does anything, and both are on the first with their addresses.
    world.prefer(first)
    services.drain(Host.objects.get(pk=second.pk))
    for user, peer in ((alice, laptop), (bob, phone)):
        world.wait(lambda: world.is_on(user, first) and peer.connected())  # noqa: B023 (asked within the turn)
    moved = world.live(alice)
    assert moved is not None
    assert moved.address == before.address
    assert set(Connection.objects.filter(host=second).values_list("end_reason", flat=True)) == {"drained"}
    world.wait(lambda: world.shown(second, "peers") == "")
    browser = Client()
    staff(browser, superuser=True)
    world.wait(lambda: "drained: empty" in browser.get("/admin/servers/host/").content.decode())

    # Its worker is told to end, for an upgrade: what it keeps stays as it is. So it is where somebody is connected.
    with Pinger(laptop.machine, GATEWAY) as pinger:
        for host in (first, second):
            process = world.workers[host.pk].process
            assert process is not None
            process.terminate()
            process.wait()
            assert f"{world.server.interface}:" in world.machines[host.pk].ip("link", "show", "up")
        assert laptop.machine.pings(GATEWAY)
        for worker in world.workers.values():
            worker.start()
        services.take_clients(Host.objects.get(pk=second.pk))
        world.wait(lambda: "drained" not in browser.get("/admin/servers/host/").content.decode())
    assert pinger.lost == 0
    assert world.live(alice) == moved
    for peer in (laptop, phone):
        peer.end()


def test_a_network_behind_clients_fails_over_from_a_host_to_another(world: World) -> None:
    first, second = world.host, world.second
    (alice, office), (bob, standby) = world.hire("alice"), world.hire("bob")
    behind = world.lab.add_behind(standby.machine, 77)
    for priority, user in enumerate((alice, bob), start=1):
        row = ClientNetwork(server=world.server, user=user, network="10.77.0.0/24", priority=priority)
        row.full_clean()
        row.save()
    office.up()
    world.wait(office.connected)
    world.prefer(second)
    carol, desk = world.hire("carol")
    for peer in (standby, desk):
        peer.up()
        world.wait(peer.connected)
    assert [world.is_on(*pair) for pair in ((alice, first), (bob, second), (carol, second))] == [True] * 3
    assert "10.77.0.0/24" in world.shown(first, "allowed-ips")
    assert "10.77.0.0/24" not in world.shown(second, "allowed-ips")
    assert not desk.machine.pings(behind.address, NEVER)

    office.kill()
    world.wait(lambda: desk.machine.pings(behind.address, NEVER))
    assert "10.77.0.0/24" in world.shown(second, "allowed-ips")
    world.wait(lambda: "10.77.0.0/24" not in world.shown(first, "allowed-ips"))
    assert Connection.objects.filter(user=alice, state=State.ENDED).exists()
    for peer in (standby, desk):
        peer.end()
