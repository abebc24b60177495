"""Ports of the host that lead to a client: from where they work, whom the client sees, and what they never take."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from servers.hostnet.netlink import conntrack
from servers.hostnet.state import Forward, Interface, Route
from tests.host.firewalled import WEB_PORT, FirewalledHost
from tests.lab import HANGING, NEVER, Echo, Lab, Machine, until

pytestmark = pytest.mark.host

SERVICE, OPEN = 7000, 8000
FAR, FAR6 = "203.0.113.9", "2001:db8:9::9"
ALICE, BOB, CAROL = ("10.9.0.11", "fd01::11"), ("10.10.0.12", "fd02::12"), ("10.9.0.13", "fd01::13")
TO_ALICE = tuple(Forward(protocol, OPEN, OPEN + 2, SERVICE) for protocol in ("tcp", "udp"))
TO_BOB = tuple(Forward(protocol, 9000, 9000, SERVICE) for protocol in ("tcp", "udp"))


@dataclass
class Scene:
    """Alice and Carol have the tunnel network and one route of server one; Bob sends everything to server two."""

    at: FirewalledHost
    alice: Machine
    bob: Machine
    carol: Machine
    lan: Machine  # 10.50, a route of server one

    @property
    def public(self) -> tuple[str, str]:
        return self.at.host.address, self.at.host.address6


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    routes = (Route("10.50.0.0/24", False), Route("2001:db8:50::/64", False))
    everything = (Route("0.0.0.0/0", True), Route("::/0", True))
    one = Interface("wgs1", "one", 51820, ("10.9.0.1/24", "fd01::1/64"), 0, False, 360, routes, ())
    two = Interface("wgs2", "two", 51821, ("10.10.0.1/24", "fd02::1/64"), 0, False, 360, everything, ())
    with Lab() as lab, ExitStack() as stack:
        at = FirewalledHost(lab, one, two)
        lab.add_far_address(FAR, FAR6)
        lan = lab.add_lan(at.host, 50, routed=True)
        alice, bob, carol = lab.add_client(), lab.add_client(), lab.add_client()
        given = ("10.9.0.0/24", "fd01::/64", *(route.network for route in routes))
        at.connect(alice, "wgs1", "a1", ALICE, given, forwards=TO_ALICE)
        at.connect(bob, "wgs2", "b1", BOB, ("0.0.0.0/0", "::/0"), forwards=TO_BOB)
        at.connect(carol, "wgs1", "c1", CAROL, given)
        for machine, addresses in ((alice, ALICE), (bob, BOB), (carol, CAROL)):
            for address in addresses:
                for port in range(SERVICE, SERVICE + 3):
                    stack.enter_context(Echo(machine, address, port))
        yield Scene(at, alice, bob, carol, lan)


def both(
    machine: Machine, address: str, port: int, *, never: bool = False, source: str = "", data: bytes = b"hello"
) -> set[bytes | None]:
    """What comes back over TCP and over UDP; ``source`` is the address to ask from, where it matters."""
    timeout = NEVER if never else HANGING
    return {ask(address, port, data, timeout, source) for ask in (machine.ask_tcp, machine.ask_udp)}


def test_ports_are_reached_from_outside_on_both_families(scene: Scene) -> None:
    for address, gateway in zip(scene.public, (b"10.9.0.1", b"fd01::1"), strict=True):
        for port in (OPEN, OPEN + 2):
            assert both(scene.at.lab.internet, address, port) == {gateway + b" hello"}
    for port in (OPEN - 1, OPEN + 3, SERVICE):
        for address in scene.public:
            assert both(scene.at.lab.internet, address, port, never=True) == {None}


def test_range_leads_to_as_many_ports_in_their_order(scene: Scene) -> None:
    with Echo(scene.alice, ALICE[0], SERVICE + 10) as first, Echo(scene.alice, ALICE[0], SERVICE + 11) as second:
        scene.at.forward("a1", *TO_ALICE, Forward("tcp", 8100, 8101, SERVICE + 10))
        for port in (8100, 8101):
            assert scene.at.lab.internet.ask_tcp(scene.public[0], port, f"{port}".encode()) == b"10.9.0.1 %d" % port
        assert (first.seen, second.seen) == ([b"8100"], [b"8101"])
        assert scene.at.lab.internet.ask_udp(scene.public[0], 8100, timeout=NEVER) is None
    scene.at.forward("a1", *TO_ALICE)


def test_client_that_sends_everything_sees_the_real_source(scene: Scene) -> None:
    for address, far in zip(scene.public, (FAR, FAR6), strict=True):
        assert both(scene.at.lab.internet, address, 9000, source=far) == {f"{far} hello".encode()}


def test_client_with_few_routes_sees_the_gateway_in_place_of_strangers_only(scene: Scene) -> None:
    for address, far, gateway in zip(scene.public, (FAR, FAR6), ("10.9.0.1", "fd01::1"), strict=True):
        assert both(scene.at.lab.internet, address, OPEN, source=far) == {f"{gateway} hello".encode()}
    # The LAN is a route of hers, so she answers there by herself.
    assert both(scene.lan, scene.public[0], OPEN) == {b"10.50.0.2 hello"}
    assert both(scene.lan, scene.public[1], OPEN) == {b"2001:db8:50::2 hello"}


def test_every_address_of_the_host_has_the_ports_but_the_gateways(scene: Scene) -> None:
    assert both(scene.lan, "10.50.0.1", OPEN) == {b"10.50.0.2 hello"}
    assert both(scene.lan, "2001:db8:50::1", OPEN) == {b"2001:db8:50::2 hello"}
    for gateway in ("10.9.0.1", "fd01::1", "10.10.0.1", "fd02::1"):
        assert both(scene.lan, gateway, OPEN, never=True) == {None}
        assert both(scene.at.host, gateway, OPEN, never=True) == {None}


def test_host_itself_reaches_the_ports_at_its_own_addresses(scene: Scene) -> None:
    for address, gateway in zip(scene.public, (b"10.9.0.1", b"fd01::1"), strict=True):
        assert both(scene.at.host, address, OPEN) == {gateway + b" hello"}
    for address, gateway in zip(scene.public, (b"10.10.0.1", b"fd02::1"), strict=True):
        assert both(scene.at.host, address, 9000) == {gateway + b" hello"}


def test_what_the_hosts_programs_say_to_each_other_never_goes_to_a_client(scene: Scene) -> None:
    for loopback in ("127.0.0.1", "::1"):
        assert both(scene.at.host, loopback, OPEN, never=True) == {None}
        with Echo(scene.at.host, loopback, OPEN):
            assert both(scene.at.host, loopback, OPEN) == {f"{loopback} hello".encode()}


def test_ports_by_which_clients_reach_the_host_are_never_forwarded(scene: Scene) -> None:
    taken = (Forward("tcp", WEB_PORT, WEB_PORT, SERVICE), Forward("udp", 51820, 51821, SERVICE))
    scene.at.forward("c1", *taken, Forward("udp", WEB_PORT, WEB_PORT, SERVICE))
    try:
        for machine in (scene.at.lab.internet, scene.at.host):
            assert machine.ask_tcp(scene.public[0], WEB_PORT, timeout=NEVER) is None
            assert machine.ask_udp(scene.public[0], 51820, timeout=NEVER) is None
            assert machine.ask_udp(scene.public[1], 51821, timeout=NEVER) is None
            assert machine.ask_udp(scene.public[0], WEB_PORT) == b"10.9.0.1 hello"
        with Echo(scene.at.host, "10.9.0.1", WEB_PORT):
            assert scene.alice.ask_tcp("10.9.0.1", WEB_PORT) == b"10.9.0.11 hello"
        assert scene.alice.pings("10.9.0.1")
    finally:
        scene.at.forward("c1")


def test_no_client_reaches_a_forwarded_port_through_its_tunnel(scene: Scene) -> None:
    """Else two servers on one host would meet there, or clients of one that keeps them apart."""
    hers = {family: f"{address}/{128 if ':' in address else 32}" for family, address in enumerate(scene.public)}
    scene.carol.run("wg", "set", "wgp0", "peer", peer_of(scene.carol), "allowed-ips", "0.0.0.0/0,::/0")
    for network in hers.values():
        scene.carol.ip("route", "replace", network, "dev", "wgp0", "table", "7")
    rules = [("-4", "to", hers[0]), ("-6", "to", hers[1])]
    for family, *to in rules:  # but its WireGuard packets
        scene.carol.ip(family, "rule", "add", *to, "ipproto", "tcp", "table", "7")
    before = scene.at.host.packets("wgs1")[0]
    for address in scene.public:
        for port in (OPEN, 9000):
            assert scene.carol.ask_tcp(address, port, timeout=NEVER) is None
    until(lambda: scene.at.host.packets("wgs1")[0] >= before + 4)  # they did arrive
    for family, *to in rules:
        scene.carol.ip(family, "rule", "del", *to, "ipproto", "tcp", "table", "7")
    assert scene.carol.ask_tcp(scene.public[0], OPEN) == b"10.9.0.1 hello"  # outside the tunnel, as anybody


def peer_of(client: Machine) -> str:
    return client.run("wg", "show", "wgp0", "peers").stdout.strip()


def test_forwarded_port_opens_no_other_of_the_client(scene: Scene) -> None:
    lab = scene.at.lab
    for network, address in (("10.9.0.0/24", ALICE[0]), ("fd01::/64", ALICE[1])):
        lab.internet.ip("route", "add", network, "via", scene.public[":" in address])
        # Neither the port behind the forward by its own address, nor any other.
        assert both(lab.internet, address, SERVICE, never=True) == {None}
        assert both(lab.internet, address, SERVICE + 2, never=True) == {None}
        lab.internet.ip("route", "del", network)


def test_forward_that_is_taken_away_ends_what_it_carried_in_both_directions(scene: Scene) -> None:
    forward = Forward("tcp", 8500, 8500, SERVICE + 5)
    for family, far in enumerate((FAR, FAR6)):
        with Echo(scene.alice, ALICE[family], SERVICE + 5) as echo, ExitStack() as stack:
            scene.at.forward("a1", *TO_ALICE, forward)
            held = stack.enter_context(scene.at.lab.internet.socket(far, socket.SOCK_STREAM))
            held.settimeout(HANGING)
            held.connect((scene.public[family], 8500))
            held.sendall(b"one")
            assert held.recv(100).endswith(b" one")
            scene.at.forward("a1", *TO_ALICE)
            held.sendall(b"two")
            held.settimeout(NEVER)
            with pytest.raises(TimeoutError):
                held.recv(100)
            assert echo.seen == [b"one"]
            assert scene.at.lab.internet.ask_tcp(scene.public[family], 8500, timeout=NEVER) is None
            scene.at.forward("a1", *TO_ALICE, forward)
            held.settimeout(HANGING)
            assert held.recv(100).endswith(b" two")  # TCP was only held up
    scene.at.forward("a1", *TO_ALICE)


def test_forward_moves_to_another_client(scene: Scene) -> None:
    forward = Forward("tcp", 8500, 8500, SERVICE + 6)
    with ExitStack() as stack:
        for family, public in enumerate(scene.public):
            at_alice, at_carol = (
                stack.enter_context(Echo(machine, addresses[family], SERVICE + 6))
                for machine, addresses in ((scene.alice, ALICE), (scene.carol, CAROL))
            )
            scene.at.forward("a1", *TO_ALICE, forward)
            assert scene.at.lab.internet.ask_tcp(public, 8500, b"one") is not None
            scene.at.forward("a1", *TO_ALICE)
            scene.at.forward("c1", forward)
            assert scene.at.lab.internet.ask_tcp(public, 8500, b"two") is not None
            scene.at.forward("c1")
            assert (at_alice.seen, at_carol.seen) == ([b"one"], [b"two"])


@pytest.mark.parametrize("family", [4, 6])
def test_sender_that_never_pauses_follows_its_port(scene: Scene, family: int) -> None:
    """Conntrack decides with the first packet where a UDP conversation goes, and any further one keeps that alive."""
    public, gateway, far = (each[family == 6] for each in (scene.public, ("10.9.0.1", "fd01::1"), (FAR, FAR6)))
    with scene.at.lab.internet.socket(far, socket.SOCK_DGRAM) as sender, ExitStack() as stack:
        sender.bind((far, 0))

        def ask(data: bytes) -> bytes | None:
            sender.settimeout(HANGING if data else NEVER)
            sender.sendto(data or b"nobody", (public, 8300))
            try:
                return sender.recv(100)
            except OSError:
                return None

        at_alice, at_carol = (
            stack.enter_context(Echo(machine, address[family == 6], SERVICE + 20))
            for machine, address in ((scene.alice, ALICE), (scene.carol, CAROL))
        )
        forward = Forward("udp", 8300, 8300, SERVICE + 20)
        assert ask(b"") is None
        scene.at.forward("a1", *TO_ALICE, forward)
        assert ask(b"alice") == f"{gateway} alice".encode()
        scene.at.forward("a1", *TO_ALICE)
        assert ask(b"") is None
        scene.at.forward("c1", forward)
        assert ask(b"carol") == f"{gateway} carol".encode()
        scene.at.forward("c1")
        assert (at_alice.seen, at_carol.seen) == ([b"alice"], [b"carol"])


def test_changed_ports_leave_other_conversations_alone(scene: Scene) -> None:
    """Bob's own, through the host to somebody's port of the same number, and Alice's other ports."""
    with Echo(scene.at.lab.internet, FAR, 8400), ExitStack() as stack:
        pairs = [(scene.bob, (FAR, 8400)), (scene.at.lab.internet, (scene.public[0], OPEN))]
        sockets = [(stack.enter_context(machine.socket(FAR, socket.SOCK_DGRAM)), to) for machine, to in pairs]
        for sender, to in sockets:
            sender.settimeout(HANGING)
            sender.connect(to)
            sender.send(b"one")
            assert sender.recv(100).endswith(b" one")

        def tracked() -> set[str]:
            lines = scene.at.host.run("conntrack", "-L", "-p", "udp", "-o", "id").stdout.splitlines()
            return {line.rpartition("id=")[2] for line in lines if "dport=8400" in line or f"dport={OPEN} " in line}

        before = tracked()
        assert len(before) >= 2
        scene.at.forward("a1", *TO_ALICE, Forward("udp", 8400, 8400, SERVICE))
        scene.at.forward("a1", *TO_ALICE)
        assert tracked() >= before


def test_only_conversations_to_changed_ports_are_forgotten(scene: Scene) -> None:
    host = scene.at.host
    for address in (FAR, FAR6):
        with host.socket(address, socket.SOCK_DGRAM) as sender:
            for port in range(20_000, 20_100):
                sender.sendto(b"x", (address, port))
    for version, family in ((4, "ipv4"), (6, "ipv6")):

        def tracked(family: str = family) -> int:
            return host.run("conntrack", "-L", "-p", "udp", "-f", family).stdout.count("dport=200")

        before = tracked()
        # One by one, and in one go.
        for ports in (range(20_000, 20_003), range(20_003, 20_050)):
            assert host.call(lambda v=version, p=ports: conntrack.flush_forwarded("udp", v, p, ())) == len(ports)  # type: ignore[misc]
        assert host.call(lambda v=version: conntrack.flush_forwarded("udp", v, range(20_000, 20_050), ())) == 0  # type: ignore[misc]
        assert tracked() < before
        assert host.call(lambda v=version: conntrack.flush_forwarded("udp", v, range(20_050, 20_100), ())) == 50  # type: ignore[misc]


def test_changes_leave_a_table_that_is_as_wanted(scene: Scene) -> None:
    def listing() -> str:
        return scene.at.host.run("nft", "-a", "list", "table", "inet", "wgvpn").stdout

    scene.at.forward("a1", *TO_ALICE, Forward("tcp", 8200, 8299, 1000))
    scene.at.forward("a1", *TO_ALICE)
    assert not scene.at.drifted()
    before = listing()
    scene.at.apply()
    assert listing() == before  # not even replaced by its like: handles are new then
    for change in (
        "delete element inet wgvpn targets6 { fd01::11 . tcp . 7000 }",
        "add element inet wgvpn forwards4 { tcp . 22 : 10.9.0.11 . 22 }",
        "flush map inet wgvpn forwards4",
    ):
        scene.at.host.run("nft", change)
        assert scene.at.drifted()
        scene.at.apply()
        assert not scene.at.drifted()
    assert both(scene.at.lab.internet, scene.public[0], OPEN) == {b"10.9.0.1 hello"}


def test_change_mends_a_table_that_somebody_took_apart(scene: Scene) -> None:
    scene.at.host.run("nft", "flush map inet wgvpn forwards4")
    scene.at.forward("a1", *TO_ALICE[:1])
    assert not scene.at.drifted()
    scene.at.host.run("nft", "delete table inet wgvpn")
    scene.at.forward("a1", *TO_ALICE)
    assert not scene.at.drifted()
    assert both(scene.at.lab.internet, scene.public[1], OPEN) == {b"fd01::1 hello"}
