"""The main job on real parts: an admin's rows, the real client, real tunnels and real packets."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from core import clock
from core.crypto import Secret
from core.redis_store import redis_client
from servers.models import Host, Route, Server, ServerHost
from tests.host.conftest import use_redis
from tests.lab import HANGING, NEVER, PATIENCE, Echo, Lab, Machine, Pinger, RedisServer, until
from tests.processes import environment
from tests.protocol_client import VECTORS, another_rsa_key
from tests.stack import BACKEND, GATEWAY_PORT, Stack, WgPeer
from tests.strangers import strangers
from users import certificates
from users.factors.device import enrolment
from users.models import DeviceKey, Organization, VpnUser
from wgpeers.lifecycle import connect, liveness
from wgpeers.models import Connection, State
from wgpeers.profiles import links

pytestmark = [pytest.mark.host, pytest.mark.django_db(transaction=True)]

# Shorter than in earnest, so that silence does not take six minutes; the sweep still comes every 10 s.
PING_INTERVAL, PING_TIMEOUT = (5, 16) if PATIENCE == 1 else (8, 30)
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"


@dataclass
class World:
    lab: Lab
    stack: Stack
    host: Host
    server: Server
    organization: Organization
    lan: Machine

    def hire(self, name: str, machine: Machine | None = None, *how: str) -> tuple[VpnUser, WgPeer]:
        """A user with a key, and their machine (a new one, if not given) with the profile imported by its link.
        ``how``: options of the import."""
        user = VpnUser.objects.create(
            organization=self.organization,
            name=name,
            public_key=VECTORS["user_public_key"],
            private_key=Secret.of(VECTORS["user_private_key_pkcs8"]),
            certificate=CERTIFICATE,
        )
        link = links.create(user, time.time())
        peer = WgPeer(machine or self.lab.add_client(), self.stack.directory)
        peer.add(f"pritunl://{self.stack.name}/ku/{link.short_id.reveal()}", *how)
        return user, peer

    def live(self, user: VpnUser) -> Connection | None:
        return Connection.objects.filter(user=user, state=State.OPEN).first()

    def reaches_lan(self, peer: WgPeer) -> None:
        """TCP to the LAN gets through, where the client looks like the host."""
        assert peer.machine.ask_tcp(self.lan.address, 7000) == b"10.50.0.1 hello"

    def wait(self, condition: Callable[[], object]) -> object:
        try:
            return until(condition, every=0.1)
        except TimeoutError:
            print(self.stack.log())
            raise


@pytest.fixture(scope="module")
def running(rows_that_stay: None) -> Iterator[World]:
    """The whole product, started once for all tests of a module."""
    with pytest.MonkeyPatch.context() as patch, Lab() as lab, RedisServer() as server:
        use_redis(patch, server.url)
        with Stack(lab.add_host(), server, environment()) as stack:
            yield build(lab, stack)
            if stack.worker is not None:
                stack.worker.kill()


@pytest.fixture
def world(running: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """``running`` with people of this test's own: an organization, which is gone afterwards with whoever is in it."""
    use_redis(monkeypatch, running.stack.redis.url)
    world = replace(running, server=Server.objects.get(pk=running.server.pk), organization=new_organization())
    world.server.organizations.set([world.organization])
    yield world
    world.server.factors.all().delete()
    world.organization.delete()


def build(lab: Lab, stack: Stack, **host_addresses: str) -> World:
    """``host_addresses``: the host's public ones, if not the machine's in IPv4."""
    host = Host.objects.create(name="gate", **(host_addresses or {"public_address": stack.machine.address}))
    world = office(lab, stack, host)
    stack.start_host(host.public_id)
    world.wait(lambda: ServerHost.objects.exclude(public_key="").exists())
    return world


def new_organization() -> Organization:
    ca = certificates.make_ca("Acme", another_rsa_key(), clock.moment(time.time()))
    return Organization.objects.create(name=f"Acme {secrets.token_hex(4)}", ca_certificate=ca)


def office(lab: Lab, stack: Stack, host: Host) -> World:
    """A server on ``host``, which is the machine of ``stack``, with a LAN behind it."""
    organization = new_organization()
    server = Server.objects.create(
        name="Office",
        network="10.8.0.0/24",
        wg_network="10.9.0.0/24",
        started=True,
        ping_interval=PING_INTERVAL,
        ping_timeout=PING_TIMEOUT,
    )
    server.organizations.add(organization)
    lan = lab.add_lan(stack.machine)
    Route.objects.create(server=server, network="10.50.0.0/24", nat=True)
    ServerHost.objects.create(server=server, host=host)
    return World(lab, stack, host, server, organization, lan)


def test_connect_traffic_pings_silence_revocation_and_reconnection(world: World) -> None:
    user, peer = world.hire("alice")
    peer.up()
    status = world.wait(peer.connected)
    assert isinstance(status, dict)
    first = world.live(user)
    assert first is not None
    assert status["address"].startswith(first.address)
    uses_the_wireguard_asked_for(world.stack.machine)
    uses_the_wireguard_asked_for(peer.machine)
    with Echo(world.lan, world.lan.address, 7000) as echo, Echo(world.stack.machine, "0.0.0.0", 7001):
        # To the LAN as the host itself, TCP and UDP; to the gateway by ping; to nothing else of the host.
        world.reaches_lan(peer)
        assert peer.machine.ask_udp(world.lan.address, 7000) == b"10.50.0.1 hello"
        assert peer.machine.pings("10.9.0.1")
        assert peer.machine.ask_tcp("10.9.0.1", 7001, timeout=NEVER) is None
        assert echo.seen
        # Pings keep it for longer than the timeout.
        keep_until = time.time() + PING_TIMEOUT + 12
        world.wait(lambda: time.time() > keep_until)
        assert world.live(user) == first
        # Silence: the client is killed, its WireGuard process goes on.
        peer.kill()
        world.reaches_lan(peer)
        world.wait(lambda: world.live(user) is None)
        world.wait(lambda: peer.machine.ask_tcp(world.lan.address, 7000, timeout=NEVER) is None)
        first.refresh_from_db()
        assert first.end_reason == "silent"
        world.wait(lambda: Connection.objects.filter(pk=first.pk, removal_latency__isnull=False).exists())
        # A new key, the same address.
        peer.up()
        world.wait(peer.connected)
        second = world.live(user)
        assert second is not None
        assert second.wg_public_key != first.wg_public_key
        assert second.address == first.address
        world.reaches_lan(peer)
    peer.end()


def test_a_client_that_is_disconnected_is_told_by_its_next_ping_and_comes_back(world: World) -> None:
    user, peer = world.hire("alice")
    peer.up()
    world.wait(peer.connected)
    first = world.live(user)
    assert first is not None
    with Echo(world.lan, world.lan.address, 7000):
        world.reaches_lan(peer)
        assert connect.disconnect(first, time.time())
        # At once, although its peer is still there.
        world.wait(lambda: Connection.objects.filter(pk=first.pk, removed__isnull=False).exists())
        world.wait(lambda: world.live(user) not in {None, first})
        world.wait(lambda: (status := peer.connected()) and status["reconnects"] == 1)
        assert "the server has ended this connection: disconnected by an administrator" in peer.log.read_text()
        world.reaches_lan(peer)
    first.refresh_from_db()
    assert first.removal_latency is not None
    assert first.removal_latency < PING_TIMEOUT  # and not when it would have fallen silent
    peer.end()


def test_who_is_disabled_is_told_and_then_gone_from_the_interface(world: World) -> None:
    user, peer = world.hire("alice")
    peer.up()
    world.wait(peer.connected)
    connection = world.live(user)
    assert connection is not None

    def peer_is_there() -> bool:
        return connection.wg_public_key in world.stack.machine.run("wg", "show", "all", "peers").stdout

    assert peer_is_there()
    user.enabled = False
    user.save()
    world.wait(lambda: "the server has ended this connection: no longer permitted" in peer.log.read_text())
    world.wait(lambda: not peer_is_there())
    peer.end()


def test_a_device_is_let_in_once_it_is_confirmed_and_out_once_it_is_revoked(world: World) -> None:
    world.server.factors.create(kind="device")
    user, peer = world.hire("alice")
    peer.up()
    world.wait(lambda: "registration key" in peer.log.read_text())
    row = DeviceKey.objects.get()
    assert row.reg_key in peer.log.read_text()
    assert not Connection.objects.filter(user=user).exists()
    peer.end()
    assert enrolment.confirm(row, time.time())
    peer.up()
    world.wait(peer.connected)
    with Echo(world.lan, world.lan.address, 7000):
        world.reaches_lan(peer)
        enrolment.revoke(row, time.time())
        ended = Connection.objects.filter(user=user, state=State.ENDED, removed__isnull=False)
        world.wait(ended.exists)
    world.wait(lambda: (peer.process.poll() if peer.process else None) is not None)
    assert world.live(user) is None


def test_two_clients_reach_each_other_only_while_the_server_lets_them(world: World) -> None:
    _, alice = world.hire("alice")
    _, bob = world.hire("bob")
    for peer in (alice, bob):
        peer.up()
    addresses = []
    for peer in (alice, bob):
        status = world.wait(peer.connected)
        assert isinstance(status, dict)
        addresses.append(status["address"].partition("/")[0])
    assert len(set(addresses)) == 2
    assert alice.machine.pings(addresses[1])
    world.server.inter_client = False
    world.server.save()
    world.wait(lambda: not alice.machine.pings(addresses[1], NEVER))
    assert not bob.machine.pings(addresses[0], NEVER)
    assert alice.machine.pings("10.9.0.1")
    world.server.inter_client = True
    world.server.save()
    world.wait(lambda: alice.machine.pings(addresses[1]))
    alice.end()
    bob.end()


def test_redis_killed_and_restarted_empty_drops_no_packet_and_revokes_nobody(world: World) -> None:
    user, peer = world.hire("alice")
    peer.up()
    world.wait(peer.connected)
    before = world.live(user)
    assert before is not None
    redis = world.stack.redis
    assert isinstance(redis, RedisServer)
    with Pinger(peer.machine, "10.9.0.1") as pinger:
        redis.kill()
        time_of_death = time.time()
        redis.start()
        # The sweep notices the loss and refills; the client's pings are answered all along or retried.
        world.wait(lambda: liveness.deadlines([before.public_id]))
        world.wait(lambda: time.time() > time_of_death + PING_TIMEOUT + 12)
    assert pinger.sent > 100
    assert pinger.lost == 0
    assert world.live(user) == before
    status = peer.status()
    assert status["reconnects"] == 0
    # And all of it still works: a new client connects.
    _, bob = world.hire("bob")
    bob.up()
    world.wait(bob.connected)
    bob.end()
    peer.end()


def test_host_worker_killed_and_restarted_drops_no_session_and_forgets_who_was_removed(world: World) -> None:
    user, alice = world.hire("alice")
    other, bob = world.hire("bob")
    for peer in (alice, bob):
        peer.up()
        world.wait(peer.connected)
    worker = world.stack.worker
    assert worker is not None
    with Pinger(alice.machine, "10.9.0.1") as pinger:
        worker.kill()
        other.enabled = False
        other.save()
        world.wait(lambda: world.live(other) is None)
        worker.start()
        world.wait(lambda: not bob.machine.pings("10.9.0.1", NEVER))
    assert pinger.lost == 0
    assert world.live(user) is not None
    alice.end()
    bob.end()


def test_web_killed_in_the_middle_of_a_connect_leaves_nothing_half_made(world: World) -> None:
    user, peer = world.hire("alice")
    worker = world.stack.worker
    assert worker is not None
    # The worker is stopped, so that the connect is waiting for its word when the web dies.
    assert worker.process is not None
    alive = world.wait(lambda: redis_client().get(f"{world.host.queue}:alive"))
    worker.process.send_signal(signal.SIGSTOP)
    # It still counts as alive, for as long as the client takes to come on a busy machine.
    redis_client().mset({f"{world.host.queue}:alive": str(alive), f"{world.host.queue}:fresh": "1"})
    peer.up()
    world.wait(lambda: Connection.objects.filter(user=user, state=State.PENDING).exists())
    web = world.stack.web
    assert web is not None
    web.send_signal(signal.SIGSTOP)  # else it would put a new process in the place of one that was killed
    for pid in children(web.pid):
        os.kill(pid, signal.SIGKILL)
    web.kill()
    web.wait(HANGING)
    peer.end()
    half_made = Connection.objects.filter(user=user).exclude(state=State.ENDED)
    worker.process.send_signal(signal.SIGCONT)
    world.wait(lambda: not half_made.exists())
    world.stack.start_again("web")
    world.wait(lambda: b"200 OK" in world.stack.asked(443, "/admin/login/"))
    peer.up()
    world.wait(peer.connected)
    peer.end()


def test_half_requests_through_one_tunnel_hold_up_no_other_tunnels_pings(world: World) -> None:
    _alice, peer = world.hire("alice")
    _mallory, greedy = world.hire("mallory")
    for each in (peer, greedy):
        each.up()
        world.wait(each.connected)
    with strangers(greedy.machine, "10.9.0.1", GATEWAY_PORT, 200):
        began = time.time()
        # Longer than alice's connection lasts without a ping, and so than any of hers that had to wait.
        world.wait(lambda: peer.connected().get("last_ping", 0) > began + PING_TIMEOUT + PING_INTERVAL)
    assert peer.status()["reconnects"] == 0
    for each in (peer, greedy):
        each.end()


def uses_the_wireguard_asked_for(machine: Machine) -> None:
    """Its one tunnel is the kernel's, with no process for it, where ``BACKEND`` says so; else it is wireguard-go's."""
    commands = []
    for pid in machine.processes():
        with contextlib.suppress(OSError):  # it has just ended
            commands.append(Path(f"/proc/{pid}/comm").read_text().strip())
    kernel_links = machine.ip("-o", "link", "show", "type", "wireguard").splitlines()
    processes = commands.count("wireguard-go")
    assert (len(kernel_links), processes) == ((1, 0) if BACKEND == "kernel" else (0, 1))


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]
