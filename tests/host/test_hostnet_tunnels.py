"""What gets through a host's tunnels and, above all, what does not. Real packets."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

import pytest

from servers.hostnet.state import RemovePeers
from tests.host.conftest import WEB_PORT, World
from tests.lab import HANGING, NEVER, Echo, Machine, until

pytestmark = pytest.mark.host

EVERYWHERE = [
    "10.9.0.0/24",
    "10.10.0.0/24",
    "10.50.0.0/24",
    "10.51.0.0/24",
    "10.52.0.0/24",
    "fd01::/64",
    "2001:db8:50::/64",
]
ANY = "0.0.0.0"
SERVICE = 7000


@dataclass
class Scene:
    """Alice and Bob are on server one, Charlie on server two. All their machines send everything into the tunnel."""

    world: World
    alice: Machine
    bob: Machine
    charlie: Machine
    lan: Machine  # a NAT route of server one
    stranger: Machine  # behind the host, but a route of server two only
    plain: Machine  # a route of server one without NAT
    lan_echo: Echo
    alice_echo: Echo


@pytest.fixture(scope="module")
def scene(world: World) -> Iterator[Scene]:
    lab, host = world.lab, world.host
    lan, stranger, plain = lab.add_lan(host, 50), lab.add_lan(host, 51), lab.add_lan(host, 52, routed=True)
    alice, bob, charlie = lab.add_client(), lab.add_client(), lab.add_client()
    world.connect(alice, "one", "a1", "10.9.0.11", "fd01::11", routes=EVERYWHERE)
    world.connect(bob, "one", "b1", "10.9.0.12", "fd01::12", routes=EVERYWHERE)
    world.connect(charlie, "two", "c1", "10.10.0.13", routes=EVERYWHERE[:5])
    servers = [(lan, lan.address), (lan, lan.address6), (stranger, stranger.address), (plain, plain.address)]
    servers += [(alice, "10.9.0.11"), (bob, "10.9.0.12"), (bob, "fd01::12"), (charlie, "10.10.0.13")]
    with ExitStack() as stack:
        echoes = [stack.enter_context(Echo(where, address, SERVICE)) for where, address in servers]
        for port in (53, SERVICE, WEB_PORT):
            for address in (ANY, "::"):
                stack.enter_context(Echo(host, address, port))
        yield Scene(world, alice, bob, charlie, lan, stranger, plain, echoes[0], echoes[4])


def test_gateway_answers_ping_dns_and_gateway_web(scene: Scene) -> None:
    alice = scene.alice
    assert alice.pings("10.9.0.1")
    assert alice.pings("fd01::1")
    assert alice.ask_tcp("10.9.0.1", WEB_PORT) == b"10.9.0.11 hello"
    assert alice.ask_tcp("fd01::1", WEB_PORT) == b"fd01::11 hello"
    assert alice.ask_udp("10.9.0.1", 53) == b"10.9.0.11 hello"
    assert alice.ask_tcp("10.9.0.1", 53) == b"10.9.0.11 hello"
    assert scene.charlie.ask_tcp("10.10.0.1", WEB_PORT) == b"10.10.0.13 hello"


def test_nat_route_is_reached_in_the_hosts_name(scene: Scene) -> None:
    assert scene.alice.ask_tcp(scene.lan.address, SERVICE) == b"10.50.0.1 hello"
    assert scene.alice.ask_udp(scene.lan.address, SERVICE) == b"10.50.0.1 hello"
    assert scene.alice.ask_tcp(scene.lan.address6, SERVICE) == b"2001:db8:50::1 hello"
    assert scene.alice.pings(scene.lan.address)


def test_plain_route_keeps_the_clients_address(scene: Scene) -> None:
    assert scene.alice.ask_tcp(scene.plain.address, SERVICE) == b"10.9.0.11 hello"
    assert scene.alice.ask_udp(scene.plain.address, SERVICE) == b"10.9.0.11 hello"


def test_default_route_reaches_the_internet(scene: Scene) -> None:
    with Echo(scene.stranger, ANY, SERVICE + 1):
        assert scene.charlie.ask_tcp(scene.stranger.address, SERVICE + 1) == b"10.51.0.1 hello"


def test_host_offers_nothing_else_through_the_tunnel(scene: Scene) -> None:
    for client, gateway in ((scene.alice, "10.9.0.1"), (scene.charlie, "10.10.0.1")):
        assert client.ask_tcp(gateway, SERVICE, timeout=NEVER) is None
        assert client.ask_udp(gateway, SERVICE, timeout=NEVER) is None
        assert client.ask_udp(gateway, WEB_PORT, timeout=NEVER) is None
    # The host's other addresses, although they are in a route (of alice) or in 0.0.0.0/0 (of charlie).
    for client in (scene.alice, scene.charlie):
        assert client.ask_tcp("10.50.0.1", WEB_PORT, timeout=NEVER) is None
        assert client.ask_tcp("10.50.0.1", SERVICE, timeout=NEVER) is None
        assert not client.pings("10.50.0.1", NEVER)
    # The gateway of another server.
    assert scene.charlie.ask_tcp("10.9.0.1", WEB_PORT, timeout=NEVER) is None
    assert not scene.alice.pings("10.10.0.1", NEVER)


def test_gateway_web_is_reached_through_tunnels_only(scene: Scene) -> None:
    host, internet = scene.world.host, scene.world.lab.internet
    assert internet.ask_tcp(host.address, SERVICE) == b"198.51.100.254 hello"
    assert internet.ask_tcp(host.address, WEB_PORT, timeout=NEVER) is None
    assert scene.lan.ask_tcp("10.50.0.1", WEB_PORT, timeout=NEVER) is None
    # A neighbour who sends packets for the gateway's address to the host outside of any tunnel.
    scene.lan.ip("route", "replace", "10.9.0.1/32", "via", "10.50.0.1")
    assert scene.lan.ask_tcp("10.9.0.1", WEB_PORT, timeout=NEVER) is None
    assert host.ask_tcp("127.0.0.1", WEB_PORT) == b"127.0.0.1 hello"


def test_a_network_that_is_no_route_is_not_reached(scene: Scene) -> None:
    assert scene.alice.ask_tcp(scene.stranger.address, SERVICE, timeout=NEVER) is None
    assert not scene.alice.pings(scene.stranger.address, NEVER)
    with Echo(scene.world.lab.internet, ANY, SERVICE + 2):
        scene.alice.ip("route", "replace", "198.51.100.254/32", "dev", "wgp0")
        try:
            assert scene.alice.ask_tcp("198.51.100.254", SERVICE + 2, timeout=NEVER) is None
        finally:
            scene.alice.ip("route", "del", "198.51.100.254/32", "dev", "wgp0")


def test_two_servers_never_reach_each_other(scene: Scene) -> None:
    assert scene.alice.ask_tcp("10.10.0.13", SERVICE, timeout=NEVER) is None
    assert scene.charlie.ask_tcp("10.9.0.11", SERVICE, timeout=NEVER) is None  # charlie has 0.0.0.0/0
    assert not scene.charlie.pings("10.9.0.12", NEVER)
    # Not even one way, without an answer.
    assert scene.charlie.ask_udp("10.9.0.11", SERVICE, b"from charlie", timeout=NEVER) is None
    assert b"from charlie" not in scene.alice_echo.seen
    assert scene.world.host.ask_udp("10.9.0.11", SERVICE, b"from the host") is not None
    assert b"from the host" in scene.alice_echo.seen


def test_only_networks_without_nat_open_connections_to_clients(scene: Scene) -> None:
    assert scene.plain.ask_tcp("10.9.0.11", SERVICE) == b"10.52.0.2 hello"
    assert scene.plain.ask_udp("10.9.0.11", SERVICE) == b"10.52.0.2 hello"
    for machine, gateway in ((scene.lan, "10.50.0.1"), (scene.stranger, "10.51.0.1")):
        machine.ip("route", "add", "10.9.0.11/32", "via", gateway)
        assert machine.ask_tcp("10.9.0.11", SERVICE, timeout=NEVER) is None
        assert machine.ask_udp("10.9.0.11", SERVICE, timeout=NEVER) is None
    assert scene.world.host.ask_tcp("10.9.0.11", SERVICE) == b"10.9.0.1 hello"  # alice does serve there


def test_a_client_cannot_use_anothers_address(scene: Scene) -> None:
    scene.alice.ip("addr", "add", "10.9.0.12/32", "dev", "wgp0")
    try:
        for address, arrives in (("10.9.0.11", True), ("10.9.0.12", False)):
            data = f"from {address}".encode()
            with scene.alice.socket(address, socket.SOCK_DGRAM) as sender:
                sender.bind((address, 0))
                sender.settimeout(HANGING if arrives else NEVER)
                sender.sendto(data, (scene.lan.address, SERVICE))
                with nullcontext() if arrives else pytest.raises(TimeoutError):
                    sender.recv(100)
            assert (data in scene.lan_echo.seen) is arrives
    finally:
        scene.alice.ip("addr", "del", "10.9.0.12/32", "dev", "wgp0")


def test_client_to_client_only_when_switched_on(scene: Scene) -> None:
    world, alice = scene.world, scene.alice
    assert scene.bob.pings("10.9.0.1")
    assert alice.ask_tcp("10.9.0.12", SERVICE, timeout=NEVER) is None
    world.interfaces["one"] = dataclasses.replace(world.interfaces["one"], inter_client=True)
    world.send_full()
    assert alice.ask_tcp("10.9.0.12", SERVICE) == b"10.9.0.11 hello"
    assert alice.ask_tcp("fd01::12", SERVICE) == b"fd01::11 hello"
    assert scene.charlie.ask_tcp("10.9.0.12", SERVICE, timeout=NEVER) is None
    world.interfaces["one"] = dataclasses.replace(world.interfaces["one"], inter_client=False)
    world.send_full()
    assert alice.ask_tcp("10.9.0.12", SERVICE, timeout=NEVER) is None


def test_ipv6_of_a_server_without_it_goes_nowhere(scene: Scene) -> None:
    world, charlie = scene.world, scene.charlie
    key = world.peers["c1"][1].public_key
    # Somebody gives the tunnel addresses behind our back; even so no IPv6 packet gets further than the interface.
    world.host.run("wg", "set", "wgs2", "peer", key, "allowed-ips", "10.10.0.13/32,fd02::13/128")
    world.host.ip("addr", "add", "fd02::1/64", "dev", "wgs2", "nodad")
    charlie.ip("addr", "add", "fd02::13/64", "dev", "wgp0", "nodad")
    charlie.run("wg", "set", "wgp0", "peer", world.keys["two"], "allowed-ips", "0.0.0.0/0,::/0")
    charlie.ip("route", "add", "2001:db8:50::/64", "dev", "wgp0")
    before = world.host.packets("wgs2")[0]
    assert not charlie.pings("fd02::1", NEVER)
    assert charlie.ask_tcp("fd02::1", WEB_PORT, timeout=NEVER) is None
    assert charlie.ask_tcp(scene.lan.address6, SERVICE, timeout=NEVER) is None
    until(lambda: world.host.packets("wgs2")[0] >= before + 3)  # they did arrive
    assert "wgs2: address fd02::1/64 was added" in str(world.send_full()["drift"])


def test_a_removed_route_ends_what_it_carried_in_both_directions(scene: Scene) -> None:
    world = scene.world
    routes = world.interfaces["one"].routes
    with (
        scene.alice.socket(scene.lan.address, socket.SOCK_DGRAM) as client,
        scene.lan.socket(scene.lan.address, socket.SOCK_DGRAM) as server,
    ):
        server.bind((scene.lan.address, SERVICE + 3))
        client.connect((scene.lan.address, SERVICE + 3))
        for end in (client, server):
            end.settimeout(HANGING)
        client.send(b"one")
        data, sender = server.recvfrom(100)
        server.sendto(b"two", sender)
        assert (data, client.recv(100)) == (b"one", b"two")
        world.interfaces["one"] = dataclasses.replace(world.interfaces["one"], routes=routes[1:])
        world.send_full()
        client.send(b"three")
        server.sendto(b"four", sender)
        for end in (client, server):
            end.settimeout(NEVER)
            with pytest.raises(TimeoutError):
                end.recv(100)
        world.interfaces["one"] = dataclasses.replace(world.interfaces["one"], routes=routes)
        world.send_full()
        server.settimeout(HANGING)
        client.send(b"five")
        assert server.recv(100) == b"five"


def test_removal_stops_packets_and_forgets_connections(scene: Scene) -> None:
    world = scene.world
    assert scene.bob.ask_udp(scene.lan.address, SERVICE) == b"10.50.0.1 hello"
    assert "src=10.9.0.12" in world.host.run("conntrack", "-L").stdout
    del world.peers["b1"]
    world.version += 1
    world.control.send(RemovePeers(world.version, ("b1",)))
    report = world.control.report("removed")
    assert (report["connections"], report["reason"]) == (["b1"], "asked")
    tracked = world.host.run("conntrack", "-L").stdout
    assert "10.9.0.12" not in tracked
    assert "10.9.0.11" in tracked  # alice's are hers still
    assert scene.bob.ask_udp(scene.lan.address, SERVICE, b"after", timeout=NEVER) is None
    assert not scene.bob.pings("10.9.0.1", NEVER)
    assert b"after" not in scene.lan_echo.seen
    assert scene.alice.pings("10.9.0.1")
