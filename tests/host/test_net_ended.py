"""A connection that has ended, until its peer is gone: it reaches gateway web, and nothing else. Real packets, with the
real host worker."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

import pytest

from servers.hostnet.state import AddPeer, Forward, Peer, RemovePeers
from tests.host.conftest import WEB_PORT, World
from tests.lab import HANGING, NEVER, Echo, KeyPair, Machine, Tunnel, until

pytestmark = pytest.mark.host

SERVICE, FORWARDED = 7000, 8080
ROUTES = ["10.9.0.0/24", "10.50.0.0/24", "10.52.0.0/24", "192.168.7.0/24", "fd01::/64"]
LONG = 300.0  # seconds to linger, for tests that do not wait for the end of it


@dataclass
class Scene:
    """Alice's connection is made anew by each test; Bob's lasts."""

    world: World
    alice: Machine
    bob: Machine
    lan: Machine
    plain: Machine  # a route without NAT: it may open connections to clients
    tunnel: Tunnel
    count: int = 0

    def connect(self) -> str:
        """Alice is connected, with a forwarded port and a network behind her; the connection."""
        self.count += 1
        name = f"a{self.count}"
        self.world.version += 1
        peer = Peer(
            name,
            self.world.version,
            self.tunnel.keys.public,
            ("10.9.0.11/32", "fd01::11/128"),
            networks=("192.168.8.0/24",),
            forwards=(Forward("tcp", FORWARDED, FORWARDED, SERVICE),),
        )
        self.world.peers[name] = ("one", peer)
        assert self.world.control.add("one", peer) == "ok"
        # A handshake at once, whatever session her side had with the peer before.
        self.alice.run("wg", "set", self.tunnel.name, "peer", self.world.keys["one"], "remove")
        self.tunnel.connect(self.world.keys["one"], f"{self.world.host.address}:51820", ROUTES)
        assert self.alice.pings("10.9.0.1")
        return name

    def end(self, connection: str, lingers: float) -> None:
        """The one message that says so; return once the host reported it."""
        del self.world.peers[connection]
        self.world.version += 1
        self.world.control.send(RemovePeers(self.world.version, (connection,), lingers))
        self.world.control.report("removed", connections=[connection])

    def peer_is_there(self) -> bool:
        return self.tunnel.keys.public in self.world.shown("wgs1", "allowed-ips")

    def is_told(self) -> bool:
        return self.alice.ask_tcp("10.9.0.1", WEB_PORT) == b"10.9.0.11 hello"


@pytest.fixture(scope="module")
def scene(world: World) -> Iterator[Scene]:
    lab, host = world.lab, world.host
    lan, plain = lab.add_lan(host, 50), lab.add_lan(host, 52, routed=True)
    alice, bob = lab.add_client(), lab.add_client()
    tunnel = Tunnel(alice, KeyPair.make(), ["10.9.0.11/24", "fd01::11/64"])
    world.interfaces["one"] = dataclasses.replace(world.interfaces["one"], inter_client=True)
    world.send_full()
    world.connect(bob, "one", "b1", "10.9.0.12", "fd01::12", routes=ROUTES)
    assert bob.pings("10.9.0.1")
    servers = [(lan, lan.address), (plain, plain.address), (alice, "10.9.0.11"), (alice, "fd01::11")]
    servers += [(bob, "10.9.0.12"), (bob, "fd01::12")]
    with ExitStack() as stack:
        for where, address in servers:
            stack.enter_context(Echo(where, address, SERVICE))
        for port in (53, SERVICE, WEB_PORT):
            for address in ("0.0.0.0", "::"):
                stack.enter_context(Echo(host, address, port))
        yield Scene(world, alice, bob, lan, plain, tunnel)


def what_passes(scene: Scene, timeout: float) -> list[bool]:
    """What Alice reaches and what reaches her: all of it, while her connection is open."""
    alice, bob, lan, plain, host = scene.alice, scene.bob, scene.lan, scene.plain, scene.world.host
    return [
        alice.ask_tcp(lan.address, SERVICE, timeout=timeout) is not None,
        alice.ask_udp(lan.address, SERVICE, timeout=timeout) is not None,
        alice.ask_tcp("10.9.0.12", SERVICE, timeout=timeout) is not None,
        alice.ask_tcp("fd01::12", SERVICE, timeout=timeout) is not None,
        alice.ask_udp("10.9.0.1", 53, timeout=timeout) is not None,
        alice.ask_tcp("10.9.0.1", 53, timeout=timeout) is not None,
        alice.pings("10.9.0.1", timeout),
        alice.pings("fd01::1", timeout),
        bob.ask_tcp("10.9.0.11", SERVICE, timeout=timeout) is not None,
        bob.ask_udp("fd01::11", SERVICE, timeout=timeout) is not None,
        plain.ask_tcp("10.9.0.11", SERVICE, timeout=timeout) is not None,
        host.ask_tcp("10.9.0.11", SERVICE, timeout=timeout) is not None,
        scene.world.lab.internet.ask_tcp(host.address, FORWARDED, timeout=timeout) is not None,
    ]


def test_an_ended_client_reaches_gateway_web_and_nothing_else(scene: Scene) -> None:
    connection = scene.connect()
    assert all(what_passes(scene, HANGING))
    assert scene.is_told()
    scene.end(connection, LONG)
    assert scene.is_told()
    assert not any(what_passes(scene, NEVER))
    assert scene.alice.ask_tcp("fd01::1", WEB_PORT) == b"fd01::11 hello"
    assert scene.peer_is_there()
    # What followed it is gone from the host, not only shut.
    assert scene.world.shown("wgs1", "allowed-ips")[scene.tunnel.keys.public] == "10.9.0.11/32 fd01::11/128"
    assert "192.168.8.0" not in scene.world.host.ip("route")
    assert scene.bob.ask_tcp(scene.lan.address, SERVICE) == b"10.50.0.1 hello"
    assert scene.bob.pings("10.9.0.1")
    scene.world.send_full()
    assert not scene.peer_is_there()


def test_what_was_established_ends_at_once(scene: Scene) -> None:
    connection = scene.connect()
    targets = [(scene.alice, scene.lan.address), (scene.alice, "10.9.0.12"), (scene.bob, "10.9.0.11")]
    targets += [(scene.world.host, "10.9.0.11"), (scene.plain, "10.9.0.11")]
    targets += [(scene.world.lab.internet, scene.world.host.address)]
    with ExitStack() as stack:
        flows = []
        for where, address in targets:
            flow = stack.enter_context(closing(where.socket(address, socket.SOCK_STREAM)))
            flow.settimeout(HANGING)
            flow.connect((address, FORWARDED if where is scene.world.lab.internet else SERVICE))
            flow.sendall(b"before")
            assert flow.recv(100).endswith(b"before")
            flows.append(flow)
        scene.end(connection, LONG)
        for flow in flows:
            flow.settimeout(NEVER)
            with contextlib.suppress(OSError):  # no answer in time, or a reset
                flow.sendall(b"after")
                assert not flow.recv(100)
    assert scene.is_told()
    scene.world.send_full()


def test_the_peer_is_gone_when_its_time_is_over_without_a_message(scene: Scene) -> None:
    connection = scene.connect()
    began = time.monotonic()
    scene.end(connection, 3.0)
    assert scene.is_told()
    until(lambda: not scene.peer_is_there())
    assert time.monotonic() - began >= 3.0
    # The firewall forgets it last.
    until(lambda: "10.9.0.11" not in scene.world.host.run("nft", "list", "table", "inet", "wgvpn").stdout)
    assert scene.world.send_full()["drift"] == []


def test_a_state_that_has_it_still_changes_nothing_and_is_no_drift(scene: Scene) -> None:
    connection = scene.connect()
    peer = scene.world.peers[connection][1]
    scene.end(connection, LONG)
    scene.world.peers[connection] = ("one", peer.lingering(LONG))
    assert scene.world.send_full()["drift"] == []
    assert scene.is_told()
    assert not scene.alice.pings("10.9.0.1", NEVER)
    del scene.world.peers[connection]
    assert scene.world.send_full()["drift"] == []
    assert not scene.peer_is_there()


def test_the_addresss_next_owner_has_all_of_it_at_once(scene: Scene) -> None:
    scene.end(scene.connect(), LONG)
    carol = scene.world.lab.add_client()
    scene.world.connect(carol, "one", "carol", "10.9.0.11", routes=ROUTES)
    assert carol.ask_tcp(scene.lan.address, SERVICE) == b"10.50.0.1 hello"
    assert carol.pings("10.9.0.1")
    assert not scene.peer_is_there()
    assert not scene.alice.pings("10.9.0.1", NEVER)
    assert scene.alice.ask_tcp("10.9.0.1", WEB_PORT, timeout=NEVER) is None
    del scene.world.peers["carol"]
    scene.world.send_full()


def test_who_is_replaced_by_the_same_device_does_not_linger(scene: Scene) -> None:
    connection = scene.connect()
    peer = scene.world.peers.pop(connection)[1]
    scene.count += 1
    scene.world.version += 1
    after = dataclasses.replace(peer, connection=f"a{scene.count}", version=scene.world.version)
    after = dataclasses.replace(after, public_key=KeyPair.make().public)
    scene.world.peers[after.connection] = ("one", after)
    assert scene.world.control.add("one", after, replaces=(connection,)) == "ok"
    assert not scene.peer_is_there()
    del scene.world.peers[after.connection]
    scene.world.send_full()


def test_a_worker_that_starts_anew_lets_it_be_told_and_then_removes_it(scene: Scene) -> None:
    connection = scene.connect()
    peer = scene.world.peers[connection][1]
    scene.end(connection, LONG)
    scene.world.kill_worker()
    # While nobody is there to remove it, it is shut in all the same.
    assert scene.is_told()
    assert not scene.alice.pings("10.9.0.1", NEVER)
    scene.world.peers[connection] = ("one", peer.lingering(4.0))
    scene.world.start_worker()
    assert scene.is_told()
    assert not scene.alice.pings("10.9.0.1", NEVER)
    until(lambda: not scene.peer_is_there())
    # An old message does not bring it back.
    scene.world.control.send(AddPeer("one", dataclasses.replace(peer, version=scene.world.version + 1)))
    scene.world.control.send(RemovePeers(scene.world.version + 2, (connection,), LONG))
    del scene.world.peers[connection]
    scene.world.version += 1
    assert scene.world.send_full()["drift"] == []
    assert not scene.peer_is_there()
