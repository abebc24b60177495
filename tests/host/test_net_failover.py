"""A host dies, or its link: our client finds the other one by itself, with the same address, and packets flow again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

import pytest
from django.conf import LazySettings
from wgpeer.profile import parse

from servers import services
from servers.models import Host, Server, ServerHost
from tests.attempts import ask, code_at, enrol
from tests.conftest import send_celery_to
from tests.failover import FAR, FAR6, Gate, Traffic, World
from tests.host.test_end_to_end import PING_INTERVAL
from tests.lab import Lab, RedisServer
from tests.processes import environment
from tests.stack import WgPeer
from users.models import VpnUser
from wgpeers.models import Connection, State

pytestmark = [pytest.mark.host, pytest.mark.long, pytest.mark.django_db(transaction=True)]

# Where the API answers: no host's own address, so that no client asks for one of them.
API = "198.51.100.201"
Fault = Callable[[Gate], None]
FAULTS: dict[str, Fault] = {"killed": Gate.kill, "cut off": Gate.cut}


@contextlib.contextmanager
def world_of(settings: LazySettings, api: str, variables: Mapping[str, str] | None = None) -> Iterator[World]:
    with contextlib.ExitStack() as closing:
        lab, redis = closing.enter_context(Lab()), closing.enter_context(RedisServer())
        settings.REDIS_URL = redis.url
        send_celery_to(redis.url)
        yield World(lab, redis, variables or environment(), api, closing)


@pytest.fixture
def world(transactional_db: None, settings: LazySettings) -> Iterator[World]:
    with world_of(settings, API) as made:
        yield made


def two_gates(world: World, api: str = "") -> tuple[Server, Gate, Gate]:
    """A server on two hosts, of which clients get the first."""
    server = world.server(1, PING_INTERVAL)
    first, second = world.add_gate(server, api), world.add_gate(server, api)
    ServerHost.objects.filter(host=second.row).update(priority=2)
    return server, first, second


def connect(world: World, peer: WgPeer, *options: str) -> None:
    peer.up(*options)
    world.wait(peer.connected)


def moved(world: World, user: VpnUser, before: Connection, to: Gate) -> bool:
    after = world.live(user)
    same = (after.address, after.device_id) == (before.address, before.device_id)
    return same and after.pk != before.pk and after.host_id == to.row.pk


@pytest.mark.parametrize("fault", FAULTS)
def test_traffic_goes_on_by_the_other_host_when_one_is(world: World, fault: str) -> None:
    server, first, second = two_gates(world)
    user, peer = world.hire(server, "alice")
    connect(world, peer)
    with Traffic(peer) as traffic, Traffic(peer, FAR6) as six:
        assert (traffic.carrier(), six.carrier()) == (first.machine.address, first.machine.address6)
        before = world.live(user)
        FAULTS[fault](first)
        world.wait(lambda: traffic.carrier() == second.machine.address)
        assert six.carrier() == second.machine.address6
        assert moved(world, user, before, second)
        before.refresh_from_db()
        assert (before.state, before.end_reason) == (State.ENDED, "replaced")
        # And back, after the other one's end: the first takes clients again.
        first.mend()
        if fault == "killed":
            first.start()
        world.wait(first.takes_clients)
        before = world.live(user)
        FAULTS[fault](second)
        world.wait(lambda: traffic.carrier() == first.machine.address)
        assert moved(world, user, before, first)
    peer.end()


def test_traffic_goes_on_when_the_control_side_is_cut_off_meanwhile(world: World) -> None:
    """Nobody can connect until it is back; then the client does by itself."""
    server, first, second = two_gates(world)
    user, peer = world.hire(server, "alice")
    connect(world, peer)
    before = world.live(user)
    with Traffic(peer) as traffic:
        assert traffic.carrier() == first.machine.address
        internet, port = world.lab.internet, world.control.port
        internet.ip("link", "set", port, "down")
        cut = time.time()
        # A host that lives goes on: its own gateway answers.
        world.wait(lambda: peer.status().get("last_ping", 0) > cut)
        first.kill()
        world.wait(lambda: "asking again" in str(peer.status().get("message")))
        internet.ip("link", "set", port, "up")
        world.wait(lambda: traffic.carrier() == second.machine.address)
        assert moved(world, user, before, second)
    peer.end()


def test_traffic_goes_on_when_both_hosts_were_dead_and_one_is_back(world: World) -> None:
    server, first, second = two_gates(world)
    user, peer = world.hire(server, "alice")
    connect(world, peer)
    before = world.live(user)
    with Traffic(peer) as traffic:
        assert traffic.carrier() == first.machine.address
        first.kill()
        second.kill()
        world.wait(lambda: "asking again" in str(peer.status().get("message")))
        second.start()
        world.wait(lambda: traffic.carrier() == second.machine.address)
        assert moved(world, user, before, second)
    peer.end()


def test_a_link_of_the_clients_own_that_was_away_costs_no_connection(world: World) -> None:
    """Back it is looked at at once, and the old connection is as good as ever."""
    server, first, _ = two_gates(world)
    user, peer = world.hire(server, "alice")
    connect(world, peer)
    before = world.live(user)
    machine = peer.machine
    with Traffic(peer) as traffic:
        assert traffic.carrier() == first.machine.address
        # No packets, and then no network at all, as one that roams.
        machine.ip("route", "del", "default")
        machine.ip("link", "set", machine.interface, "down")
        world.wait(lambda: "asking again" in str(peer.status().get("message")))
        machine.ip("link", "set", machine.interface, "up")
        machine.ip("route", "add", "default", "via", world.lab.internet.address)
        world.wait(lambda: traffic.carrier() == first.machine.address)
        world.wait(peer.connected)
    assert world.live(user) == before
    assert "the network of this machine has changed" in peer.log.read_text()
    peer.end()


def test_a_host_that_is_emptied_asks_nobody_for_a_second_factor(world: World) -> None:
    server, first, second = two_gates(world)
    user, peer = world.hire(server, "alice")
    ask(server, totp=True)
    enrol(user, totp=True)
    connect(world, peer, "--otp", code_at(time.time()))
    assert user.enrolments.get().counter > 0  # it was asked for, and is used up
    before = world.live(user)
    with Traffic(peer) as traffic:
        assert traffic.carrier() == first.machine.address
        services.drain(Host.objects.get(pk=first.row.pk))
        world.wait(lambda: traffic.carrier() == second.machine.address)
        assert moved(world, user, before, second)
        # A host that is killed is no question either.
        services.take_clients(Host.objects.get(pk=first.row.pk))
        before = world.live(user)
        second.kill()
        world.wait(lambda: traffic.carrier() == first.machine.address)
        assert moved(world, user, before, first)
    assert "drained" in Connection.objects.filter(user=user).values_list("end_reason", flat=True)
    peer.end()


def test_addresses_of_the_api_that_come_and_go_reach_clients_which_use_them(world: World) -> None:
    """The profile was made with one address. The hosts know that it is another by now, on another port."""
    new = "198.51.100.202"
    server, first, second = two_gates(world, api=f"{new}:8443")
    world.control.ip("addr", "add", f"{new}/24", "dev", "wan")
    rules = "table ip move { chain in { type nat hook prerouting priority -100; tcp dport 8443 redirect to :443; }; }"
    world.control.run("nft", rules)
    user, peer = world.hire(server, "alice")
    (file,) = peer.directory.glob("profiles/*")
    assert [host.url for host in parse(file.read_text()).sync_hosts] == [f"https://{API}"]
    connect(world, peer)
    before = world.live(user)
    world.wait(lambda: [host.url for host in parse(file.read_text()).sync_hosts] == [f"https://{new}:8443"])
    world.control.ip("addr", "del", f"{API}/24", "dev", "wan")
    with Traffic(peer) as traffic:
        assert traffic.carrier() == first.machine.address
        first.kill()
        world.wait(lambda: traffic.carrier() == second.machine.address)
        assert moved(world, user, before, second)
    # It carries traffic a moment before the client says so.
    world.wait(peer.connected)
    assert str(peer.connected()["host"]) == f"https://{new}:8443"
    peer.end()


def test_a_client_that_has_ipv6_alone_finds_the_other_host_too(transactional_db: None, settings: LazySettings) -> None:
    with world_of(settings, "[2001:db8:1::1]") as world:
        assert world.control.address6 == "2001:db8:1::1"
        server, first, second = two_gates(world)
        user, peer = world.hire(server, "alice")
        peer.machine.ip("-4", "addr", "flush", "dev", peer.machine.interface)
        connect(world, peer)
        assert peer.connected()["endpoint"].startswith(f"[{first.machine.address6}]")
        before = world.live(user)
        with Traffic(peer, FAR) as traffic, Traffic(peer, FAR6) as six:
            assert (traffic.carrier(), six.carrier()) == (first.machine.address, first.machine.address6)
            first.kill()
            world.wait(lambda: traffic.carrier() == second.machine.address)
            assert six.carrier() == second.machine.address6
            assert moved(world, user, before, second)
        peer.end()
