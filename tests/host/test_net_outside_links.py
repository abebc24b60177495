"""A link between two installations with real packets and the real openvpn. They know nothing of each other but what is
in the link file: the database of the first one is empty again when the second one begins."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from core.clock import moment, now
from servers import link_files, outside_links
from servers.hostnet.state import Interface, Link
from servers.models import ClientNetwork, Host, OutsideLink, Route, Server, ServerHost
from tests.host.conftest import HOST_ID, HOST_USER, World
from tests.host.control import Control
from tests.host.linked import SERVICE, Flow
from tests.lab import NEVER, ONE_TRY, Capture, Echo, KeyPair, Lab, Machine, RedisServer, Tunnel, segment_sizes, until
from users.models import Organization, VpnUser
from vpnproject.runner import privileges
from wgpeers.fleet.desired import state_of

pytestmark = [pytest.mark.host, pytest.mark.django_db]

ALICE, BOB = ("10.9.0.11", "fd09::11"), ("10.19.0.11", "fd19::11")
OFFICE, LAB = ("10.9.0.0/24", "fd09::/64"), ("10.19.0.0/24", "fd19::/64")
SITE, LAN_OFFICE, LAN_LAB = "10.77.0.0/24", "10.50.0.0/24", "10.51.0.0/24"
MAPPED, REAL = "10.61.0.0/24", "10.54.0.0/24"  # what Lab's clients know a network by, and what it is
HIDDEN_OFFICE, HIDDEN_LAB = "10.52.0.0/24", "10.53.0.0/24"  # routes that are not offered
PORT = 1194


def server(name: str, machine: Machine, wg: str, v6: str, routes: Sequence[tuple[str, bool]]) -> Server:
    """As an administrator of an installation makes it, on ``machine``."""
    third = 8 if wg.startswith("10.9.") else 18
    row = Server(
        name=name, network=f"10.{third}.0.0/24", wg_network=wg, ipv6=True, network6=v6, port=51820, started=True
    )  # fmt: skip
    row.full_clean()
    row.save()
    host = Host.objects.create(name=f"{name}'s", public_address=machine.address)
    ServerHost.objects.create(server=row, host=host)
    for network, nat in routes:
        route = Route(server=row, network=network, nat=nat)
        route.full_clean()
        route.save()
    return row


def interface_of(row: Server) -> Interface:
    (host,) = row.hosts.all()
    state = state_of(host.pk)
    assert state is not None
    (found,) = state.interfaces
    return found


def office(machine: Machine) -> tuple[Interface, bytes]:
    """The first installation: what its host is told, and the link file that it makes. Its database is empty then."""
    row = server("Office", machine, *OFFICE, [(LAN_OFFICE, False), (HIDDEN_OFFICE, False)])
    link = OutsideLink(
        server=row,
        name="Lab",
        ours=", ".join((*OFFICE, LAN_OFFICE)),
        theirs=", ".join((*LAB, SITE, LAN_LAB, MAPPED)),
        port=PORT,
    )
    link.full_clean()
    link.save()
    text = outside_links.make_file(link, now())
    told = interface_of(row)
    for model in (OutsideLink, Server, Host):
        model.objects.all().delete()
    return told, text.encode()


def lab_by(raw: bytes, machine: Machine) -> Interface:
    """The second installation, with a client Bob, before whom there is a network."""
    row = server("Lab", machine, *LAB, [(LAN_LAB, True), (HIDDEN_LAB, True)])
    Route.objects.create(server=row, network=MAPPED, netmap=REAL, nat=False)
    organization = Organization.objects.create(name="Labs")
    row.organizations.add(organization)
    bob = VpnUser.objects.create(organization=organization, name="bob")
    site = ClientNetwork(server=row, user=bob, network=SITE)
    site.full_clean()
    site.save()
    file = link_files.read(raw, moment(now()))
    link = outside_links.from_file(file, row, "Office", file.ours, masquerade=False, now=now())
    link.full_clean()
    link.save()
    return interface_of(row)


@dataclass
class Side:
    """An installation's host, and a client of it."""

    world: World
    interface: Interface
    client: Machine
    addresses: tuple[str, str]

    @property
    def link(self) -> Link:
        return self.interface.links[0]

    @property
    def device(self) -> str:
        assert self.link.openvpn is not None
        return self.link.openvpn.device

    def tell(self, *links: Link) -> None:
        """A full state with these links."""
        self.world.interfaces = {self.interface.server: dataclasses.replace(self.interface, links=links)}
        self.world.version += 1
        self.world.control.send(self.world.state())
        self.world.control.report("applied", version=self.world.version)

    def connect(self, routes: Sequence[str], *behind: str) -> None:
        world, keys, own = self.world, KeyPair.make(), self.interface.server
        single = [f"{each}/{128 if ':' in each else 32}" for each in self.addresses]
        peer = dataclasses.replace(world.make_peer(own, "client", *single, keys=keys), networks=behind)
        world.peers["client"] = (own, peer)
        assert world.control.add(own, peer) == "ok"
        tunnel = Tunnel(self.client, keys, [f"{each}/{64 if ':' in each else 24}" for each in self.addresses])
        tunnel.connect(world.keys[own], f"{world.host.address}:{self.interface.port}", routes)
        # The host knows where its client is from the client's first packet.
        assert self.client.pings(self.interface.addresses[0].partition("/")[0])


@dataclass
class Scene:
    lab: Lab
    office: Side
    other: Side
    site: Machine
    lans: dict[int, Machine]

    def seen_as(self, who: Machine, address: str) -> str:
        answer = who.ask_tcp(address, SERVICE, timeout=ONE_TRY)
        return answer.decode().partition(" ")[0] if answer else ""

    def until_seen_as(self, who: Machine, address: str, name: str) -> None:
        until(lambda: self.seen_as(who, address) == name, every=0.1)

    def reach_each_other(self) -> None:
        """All that both sides named, by both IP versions, from whichever side."""
        alice, bob, lans = self.office.client, self.other.client, self.lans
        for mine, theirs in zip(ALICE, BOB, strict=True):
            self.until_seen_as(alice, theirs, mine)
            self.until_seen_as(bob, mine, theirs)
        self.until_seen_as(alice, self.site.address, ALICE[0])
        self.until_seen_as(self.site, ALICE[0], self.site.address)
        self.until_seen_as(bob, lans[50].address, BOB[0])
        self.until_seen_as(lans[50], BOB[0], lans[50].address)
        self.until_seen_as(lans[50], self.site.address, lans[50].address)
        self.until_seen_as(alice, lans[51].address, "10.51.0.1")  # a route with NAT there
        self.until_seen_as(alice, "10.61.0.2", ALICE[0])
        self.until_seen_as(lans[54], ALICE[0], "10.61.0.2")


@contextlib.contextmanager
def world_on(lab: Lab, machine: Machine, interface: Interface) -> Iterator[World]:
    with contextlib.ExitStack() as closing:
        directory = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="outside-")))
        closing.callback(lambda: print(*(each.read_text()[-4000:] for each in directory.rglob("*.log")), sep="\n"))
        redis = closing.enter_context(RedisServer(users=[HOST_USER]))
        world = World(lab, machine, redis, Control(redis, HOST_ID), directory)
        world.interfaces = {interface.server: dataclasses.replace(interface, links=())}
        world.start_worker()
        yield world


@pytest.fixture
def scene(db: None) -> Iterator[Scene]:
    with Lab() as lab, contextlib.ExitStack() as closing:
        privileges.make_users()
        hosts = [lab.add_host(), lab.add_host()]
        clients = [lab.add_client(), lab.add_client()]
        lans = {
            number: lab.add_lan(host, number, routed=True)
            for host, numbers in zip(hosts, ((50, 52), (51, 53, 54)), strict=True)
            for number in numbers
        }
        site = lab.add_behind(clients[1], 77)
        first, file = office(hosts[0])
        second = lab_by(file, hosts[1])
        sides = [
            Side(closing.enter_context(world_on(lab, host, interface)), interface, client, addresses)
            for host, interface, client, addresses in zip(hosts, (first, second), clients, (ALICE, BOB), strict=True)
        ]
        for machine in (*clients, site, *lans.values()):
            for address in ("0.0.0.0", "::"):
                closing.enter_context(Echo(machine, address, SERVICE))
        everything = ["10.0.0.0/8", "fd00::/8"]
        sides[0].connect(everything)
        sides[1].connect(["10.9.0.0/24", "10.50.0.0/24", "10.52.0.0/24", "10.19.0.0/24", "fd00::/8"], SITE)
        yield Scene(lab, sides[0], sides[1], site, lans)


def test_what_both_named_is_reached_and_nothing_else_until_one_side_ends_it(scene: Scene) -> None:
    alice, bob = scene.office.client, scene.other.client
    assert scene.seen_as(alice, BOB[0]) == ""
    scene.office.tell(scene.office.link)
    scene.other.tell(scene.other.link)
    scene.reach_each_other()
    assert segment_sizes(alice, bob, BOB[0], SERVICE + 1) == (1380, 1380)
    assert segment_sizes(bob, alice, ALICE[1], SERVICE + 1) == (1360, 1360)
    nothing_of_it_is_seen_on_the_way(scene)
    nothing_else_is_reached(scene)
    with_the_address_of_the_gateway(scene)
    a_lan_that_comes_later_is_the_hosts_own(scene)
    one_side_ends_it(scene)
    whoever_is_at_the_other_end_gets_no_further(scene)


def nothing_of_it_is_seen_on_the_way(scene: Scene) -> None:
    hosts, said = (scene.office.world.host, scene.other.world.host), b"nobody else reads this"
    with Capture(
        scene.lab.internet, [address for host in hosts for address in (host.address, host.address6)]
    ) as capture:
        for address in BOB:
            assert scene.office.client.ask_udp(address, SERVICE, said) is not None
    assert len([packet for packet in capture.packets if PORT in packet.ports]) >= 4
    assert not [packet for packet in capture.packets if said in packet.body]


def nothing_else_is_reached(scene: Scene) -> None:
    """Networks that are not offered, though the clients send there; and the hosts themselves."""
    assert scene.seen_as(scene.other.client, scene.lans[52].address) == ""
    assert scene.seen_as(scene.office.client, scene.lans[53].address) == ""
    assert scene.seen_as(scene.office.client, scene.lans[54].address) == ""  # by its real addresses
    assert scene.seen_as(scene.lans[52], BOB[0]) == ""
    assert scene.office.client.ask_tcp("10.19.0.1", 9790, timeout=NEVER) is None
    assert scene.other.client.ask_tcp("10.9.0.1", 9790, timeout=NEVER) is None


def whoever_is_at_the_other_end_gets_no_further(scene: Scene) -> None:
    """The office's host is somebody else's now, and sends whatever it likes into the tunnel."""
    host, device = scene.office.world.host, scene.office.device
    scene.office.world.kill_worker()
    host.run("nft", "flush", "ruleset")
    for network in (HIDDEN_LAB, f"{scene.lab.internet.address}/32"):
        host.ip("route", "replace", network, "dev", device, "table", "51801")
    for source, reached in (("10.9.0.99", True), ("10.99.0.9", False), ("10.19.0.12", False)):
        host.ip("addr", "add", f"{source}/32", "dev", device)
        answer = host.ask_udp(BOB[0], SERVICE, source.encode(), timeout=30 if reached else NEVER, source=source)
        assert (answer is not None) == reached, source
        for address, port in ((scene.lans[53].address, SERVICE), ("10.19.0.1", 53), ("10.19.0.1", 9790)):
            assert host.ask_tcp(address, port, timeout=NEVER, source=source) is None, (source, address)
        assert host.ask_udp(scene.lab.internet.address, SERVICE, timeout=NEVER, source=source) is None
        host.ip("addr", "del", f"{source}/32", "dev", device)


def with_the_address_of_the_gateway(scene: Scene) -> None:
    scene.other.tell(dataclasses.replace(scene.other.link, masquerade=True))
    scene.until_seen_as(scene.office.client, BOB[0], "10.19.0.1")
    scene.until_seen_as(scene.office.client, BOB[1], "fd19::1")
    scene.until_seen_as(scene.other.client, ALICE[0], BOB[0])
    scene.other.tell(scene.other.link)
    scene.reach_each_other()


def a_lan_that_comes_later_is_the_hosts_own(scene: Scene) -> None:
    """The network of the office's clients is one behind the other host now, too. All else goes on by the link."""
    world, lan = scene.other.world, scene.lab.add_lan(scene.other.world.host, 9)
    report = world.control.report("repaired")
    assert [each["code"] for each in report["conditions"]] == ["network_collides"]
    assert "10.9.0.0/24, at the other end of a link, overlaps 10.9.0.0/24 on lan9" in report["conditions"][0]["text"]
    until(lambda: world.host.pings(lan.address))
    assert scene.seen_as(scene.other.client, ALICE[0]) == ""
    scene.until_seen_as(scene.other.client, ALICE[1], BOB[1])
    scene.until_seen_as(scene.other.client, scene.lans[50].address, BOB[0])
    world.host.ip("link", "del", "lan9")
    assert world.control.report("repaired")["conditions"] == []
    scene.reach_each_other()


def is_cut(flow: Flow) -> bool:
    return not flow.goes_on(NEVER)


def one_side_ends_it(scene: Scene) -> None:
    """At once, for what is open in either direction; the other side is not asked."""
    alice, bob = scene.office.client, scene.other.client
    pairs = [*((alice, address) for address in (*BOB, scene.site.address, scene.lans[51].address))]
    pairs += [*((bob, address) for address in (*ALICE, scene.lans[50].address))]
    flows = [Flow(who, address) for who, address in pairs]
    assert all(flow.goes_on() for flow in flows)
    scene.other.tell()
    for flow in flows:
        until(partial(is_cut, flow))
        flow.close()
    for who, address in pairs:
        assert who.ask_tcp(address, SERVICE, timeout=NEVER) is None
    until(lambda: "wgo" not in scene.other.world.host.ip("link", "show"))
    links = scene.other.world.directory / "var" / "links"
    until(lambda: not [*links.iterdir()])
    scene.other.tell(scene.other.link)
    scene.reach_each_other()
    scene.office.tell()
    until(lambda: "wgo" not in scene.office.world.host.ip("link", "show"))
    assert bob.ask_tcp(ALICE[0], SERVICE, timeout=NEVER) is None
    scene.office.tell(scene.office.link)
    scene.reach_each_other()
