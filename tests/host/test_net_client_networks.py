"""A network behind two users' clients, on real parts: who serves it, who reaches it, and how long a silent gateway is
in the way. Two machines stand for one network that has two gateways: both answer at the same address."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import pytest
from django.conf import LazySettings

from servers.models import ClientNetwork
from tests.conftest import send_celery_to
from tests.host.test_end_to_end import World, build
from tests.lab import NEVER, ONE_TRY, Echo, Lab, Machine, RedisServer
from tests.processes import environment
from tests.stack import Stack, WgPeer
from users.models import VpnUser
from wgpeers.lifecycle import connect

pytestmark = [pytest.mark.host, pytest.mark.long, pytest.mark.django_db(transaction=True)]

NETWORK, NETWORK6 = "10.77.0.0/24", "2001:db8:77::/64"
SHARED, SHARED6 = "10.77.0.2", "2001:db8:77::2"
SERVICE = 7000
# In earnest 30 s: only shorter, so that a test need not wait that long.
HYSTERESIS = 6.0


@dataclass
class Gateway:
    """A user whose client is a gateway, the machine behind it, and what that machine was asked."""

    user: VpnUser
    peer: WgPeer
    behind: Machine
    echo: Echo
    echo6: Echo

    def silent(self) -> None:
        """The network behind it is cut off; its own tunnel and its pings go on."""
        self.behind.ip("link", "set", "eth0", "down")

    def well(self) -> None:
        self.behind.ip("link", "set", "eth0", "up")
        # With the link, IPv6 addresses and routes were gone.
        for address in (f"{SHARED6}/64", f"2001:db8:77::{self.number}/64"):
            self.behind.ip("addr", "replace", address, "dev", "eth0", "nodad")
        self.behind.ip("route", "replace", "default", "via", "10.77.0.1")
        self.behind.ip("route", "replace", "default", "via", "2001:db8:77::1")

    @property
    def number(self) -> int:
        return 10 + ClientNetwork.objects.get(user=self.user, network=NETWORK).priority


class Scene:
    def __init__(self, world: World, stack: ExitStack) -> None:
        self.world = world
        world.server.ipv6, world.server.network6, world.server.inter_client = True, "fd09::/64", False
        world.server.save()
        self._stack = stack
        self.alice, self.bob = self.gateway("alice", 1), self.gateway("bob", 2)
        user, self.carol = world.hire("carol")
        for peer in (self.alice.peer, self.bob.peer, self.carol):
            peer.up()
            world.wait(peer.connected)
        connection = world.live(user)
        assert connection is not None
        self.carol_address, self.carol_address6 = connection.address, str(connection.address6)

    def gateway(self, name: str, priority: int) -> Gateway:
        """The primary is asked by ICMP, the standby by TCP; each by an address that is its alone."""
        user, peer = self.world.hire(name)
        behind = self.world.lab.add_behind(peer.machine, 77)
        own = (f"10.77.0.{10 + priority}", f"2001:db8:77::{10 + priority}")
        behind.ip("addr", "add", f"{own[0]}/24", "dev", "eth0")
        behind.ip("addr", "add", f"{own[1]}/64", "dev", "eth0", "nodad")
        port = None if priority == 1 else SERVICE
        for network, probe in zip((NETWORK, NETWORK6), own, strict=True):
            row = ClientNetwork(server=self.world.server, user=user, network=network, priority=priority)
            row.probe_address, row.probe_port = probe, port
            row.full_clean(meant=["documentation_network"])
            row.save()
        echoes = [self._stack.enter_context(Echo(behind, address, SERVICE)) for address in ("0.0.0.0", "::")]
        return Gateway(user, peer, behind, *echoes)

    def serves(self, network: str = NETWORK) -> str:
        row = ClientNetwork.objects.filter(network=network, active=True).select_related("user").first()
        return row.user.name if row else "nobody"

    def reaches(self, gateway: Gateway, *, six: bool = False) -> bool:
        """Whether Carol's TCP gets to the machine behind this very gateway, and the answer back."""
        echo = gateway.echo6 if six else gateway.echo
        before = len(echo.seen)
        answer = self.carol.machine.ask_tcp(SHARED6 if six else SHARED, SERVICE, timeout=ONE_TRY)
        return answer is not None and len(echo.seen) > before

    def until_reaches(self, gateway: Gateway, since: float) -> tuple[float, float]:
        """Seconds from ``since`` until Carol reaches the network through ``gateway``, by v4 and by v6."""
        self.world.wait(lambda: self.reaches(gateway))
        took = time.monotonic() - since
        self.world.wait(lambda: self.reaches(gateway, six=True))
        return took, time.monotonic() - since


@pytest.fixture
def scene(transactional_db: None, settings: LazySettings) -> Iterator[Scene]:
    with Lab() as lab, RedisServer() as server, ExitStack() as echoes:
        settings.REDIS_URL = server.url
        settings.NETWORK_HYSTERESIS = HYSTERESIS
        send_celery_to(server.url)
        variables = {**environment(), "NETWORK_HYSTERESIS": str(HYSTERESIS)}
        with Stack(lab.add_host(), server, variables) as stack:
            scene = Scene(build(lab, stack), echoes)
            yield scene
            for peer in (scene.alice.peer, scene.bob.peer, scene.carol):
                peer.end()
            if stack.worker is not None:
                stack.worker.kill()


def test_a_network_behind_two_clients(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """One after the other, because building it takes longer than all of it."""
    reached_both_ways_and_not_from_elsewhere(scene)
    silence = a_silent_primary_is_replaced(scene)
    back = the_primary_takes_it_back_after_a_while(scene)
    ended = an_ended_connection_hands_over_at_once(scene)
    without_rows_nobody_reaches_it(scene)
    with capsys.disabled():
        print(f"\ntakeover of a silent gateway: {silence[0]:.1f} s (v4), {silence[1]:.1f} s (v6)")
        print(f"back at the primary, hysteresis {HYSTERESIS:g} s: {back[0]:.1f} s, {back[1]:.1f} s")
        print(f"takeover after the connection ended: {ended[0]:.1f} s, {ended[1]:.1f} s")


def reached_both_ways_and_not_from_elsewhere(scene: Scene) -> None:
    world, alice, bob, carol = scene.world, scene.alice, scene.bob, scene.carol.machine
    assert (scene.serves(), scene.serves(NETWORK6)) == ("alice", "alice")
    # Clients do not reach each other on this server, and reach the network all the same; so does the host itself.
    world.wait(lambda: scene.reaches(alice) and scene.reaches(alice, six=True))
    assert world.stack.machine.pings(SHARED)
    assert world.stack.machine.pings(SHARED6)
    for any_address, carol_address, shared in (
        ("0.0.0.0", scene.carol_address, SHARED),
        ("::", scene.carol_address6, SHARED6),
    ):
        with Echo(carol, any_address, SERVICE):
            # With its own address; which of its two is its choice.
            heard = alice.behind.ask_tcp(carol_address, SERVICE)
            assert str(heard).startswith(f"b'{shared[:-1]}")
        world.wait(partial(answered, alice.behind, carol_address, shared))
        # The standby's machine has the same address: while it stands by, nothing from there gets in.
        assert not answered(bob.behind, carol_address, shared)
        # Nor does what merely claims to come from behind the gateway.
        elsewhere = "10.78.0.2" if shared == SHARED else "fd78::2"
        alice.behind.ip("addr", "add", f"{elsewhere}/{128 if ':' in elsewhere else 32}", "dev", "eth0")
        assert not answered(alice.behind, carol_address, elsewhere)
    # The network reaches what clients reach, and nobody out there reaches it.
    with Echo(world.lan, world.lan.address, SERVICE):
        assert alice.behind.ask_tcp(world.lan.address, SERVICE) == b"10.50.0.1 hello"
    world.lan.ip("route", "replace", NETWORK, "via", "10.50.0.1")
    world.lab.internet.ip("route", "add", NETWORK, "via", world.stack.machine.address)
    world.lab.internet.ip("route", "add", NETWORK6, "via", world.stack.machine.address6)
    world.lan.ip("route", "replace", NETWORK6, "via", "2001:db8:50::1")
    for stranger in (world.lan, world.lab.internet):
        for address in (SHARED, SHARED6):
            assert not stranger.pings(address, timeout=NEVER)
    for address in (scene.carol_address, scene.carol_address6):
        assert not alice.peer.machine.pings(address, timeout=NEVER)


def answered(machine: Machine, address: str, source: str) -> bool:
    """Whether a ping from the machine's address ``source`` is answered."""
    return "bytes from" in machine.run("ping", "-c1", "-W1", "-I", source, address, check=False).stdout


def a_silent_primary_is_replaced(scene: Scene) -> tuple[float, float]:
    # Both probes have been heard of, so what follows is silence and not a first answer that never came.
    unheard = ClientNetwork.objects.exclude(probe_ok=True)
    scene.world.wait(lambda: not unheard.exists())
    assert scene.serves() == "alice"
    since = time.monotonic()
    scene.alice.silent()
    took = scene.until_reaches(scene.bob, since)
    assert (scene.serves(), scene.serves(NETWORK6)) == ("bob", "bob")
    assert not scene.reaches(scene.alice)
    return took


def the_primary_takes_it_back_after_a_while(scene: Scene) -> tuple[float, float]:
    since = time.monotonic()
    scene.alice.well()
    took = scene.until_reaches(scene.alice, since)
    assert min(took) >= HYSTERESIS
    return took


def an_ended_connection_hands_over_at_once(scene: Scene) -> tuple[float, float]:
    connection = scene.world.live(scene.alice.user)
    assert connection is not None
    scene.alice.peer.kill()  # or it would be back within a second
    since = time.monotonic()
    assert connect.disconnect(connection, time.time())
    return scene.until_reaches(scene.bob, since)


def without_rows_nobody_reaches_it(scene: Scene) -> None:
    for row in ClientNetwork.objects.all():
        row.delete()
    host = scene.world.stack.machine
    scene.world.wait(lambda: "10.77.0" not in host.ip("route", "show"))
    scene.world.wait(lambda: "2001:db8:77" not in host.ip("-6", "route", "show"))
    assert not scene.reaches(scene.bob)
    assert not scene.reaches(scene.bob, six=True)
    # The clients are connected as before.
    assert scene.carol.machine.pings("10.9.0.1")
    assert scene.bob.peer.machine.pings("10.9.0.1")
