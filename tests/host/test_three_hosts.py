"""One server on three machines of a mesh, everything real: what reaches a client wherever it is, and a host that is cut
off from all others for a while."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import pytest
from django.conf import LazySettings

from servers import heartbeats
from servers.models import ClientNetwork, Host, PortForward, Route, Server, ServerHost
from tests.failover import kill_all
from tests.host import test_end_to_end as one_host
from tests.host import test_two_hosts as two_hosts
from tests.host.joined import Installation, installation
from tests.lab import HANGING, NEVER, ONE_TRY, Capture, Echo, Machine, Pinger, Seen
from tests.stack import WgPeer
from users.models import VpnUser
from wgpeers.lifecycle import connect
from wgpeers.models import Connection, State

pytestmark = [pytest.mark.host, pytest.mark.long, pytest.mark.django_db(transaction=True)]

ICMP, UDP, UNREACHABLE, MESH_PORT = 1, 17, 3, 51800
OPEN, SERVICE = 8000, 7000
GATEWAYS = {4: b"10.9.0.1", 6: b"fd09::1"}
NETWORK, NETWORK6 = "10.77.0.0/24", "2001:db8:77::/64"
FAR = "203.0.113.9"  # on the internet, through the tunnel
# Nothing passes between a machine and that one.
CUT = """table inet cut {{
chain in {{ type filter hook input priority -300; ip saddr {0.address} drop; ip6 saddr {0.address6} drop; }}
chain out {{ type filter hook output priority -300; ip daddr {0.address} drop; ip6 daddr {0.address6} drop; }}
}}"""
WORDS = b"what nobody between them may read"


@dataclass
class Office:
    """``hosts`` are the control node and two machines that have joined."""

    world: Installation
    base: two_hosts.World
    hosts: list[Host]
    closing: contextlib.ExitStack
    people: dict[str, tuple[VpnUser, WgPeer]] = field(default_factory=dict)

    def machine(self, host: Host) -> Machine:
        return self.base.machines[host.pk]

    def come(self, name: str, host: Host) -> Connection:
        """They connect on ``host``; their machine answers at ``SERVICE`` on all of its addresses."""
        self.base.prefer(host)
        self.people[name] = user, peer = self.base.hire(name)
        for anywhere in ("0.0.0.0", "::"):
            self.closing.enter_context(Echo(peer.machine, anywhere, SERVICE))
        peer.up()
        self.closing.callback(peer.end)
        self.wait(peer.connected)
        assert self.base.is_on(user, host)
        return self.live(name)

    def live(self, name: str) -> Connection:
        found = self.base.live(self.people[name][0])
        assert found is not None
        return found

    def peer(self, name: str) -> WgPeer:
        return self.people[name][1]

    def move(self, name: str, host: Host) -> None:
        """They are sent away, and connect on ``host`` by themselves."""
        self.base.prefer(host)
        before = self.live(name)
        assert connect.disconnect(before, time.time())
        user, peer = self.people[name]
        self.wait(lambda: self.base.is_on(user, host) and peer.connected())
        assert self.live(name).address == before.address

    def wait(self, condition: Callable[[], object]) -> object:
        return self.world.wait(condition)


@pytest.fixture
def office(transactional_db: None, settings: LazySettings) -> Iterator[Office]:
    with installation(settings) as world, contextlib.ExitStack() as closing:
        berlin, paris = world.add("Berlin"), world.add("Paris")
        for each in (berlin, paris):
            world.join(each)
        base = one_host.office(world.lab, world.stack, world.control)
        server = base.server
        server.ipv6, server.network6, server.inter_client = True, "fd09::/64", True
        server.save()
        world.lab.add_far_address(FAR)
        Route.objects.create(server=server, network=f"{FAR}/32", nat=True)
        for each in (berlin, paris):
            ServerHost.objects.create(server=server, host=each.host, priority=2)
        machines = {each.host.pk: each.machine for each in (berlin, paris)}
        machines[world.control.pk] = world.stack.machine
        two = two_hosts.World(**vars(base), second=berlin.host, workers={}, machines=machines)
        world.wait(lambda: not ServerHost.objects.filter(public_key="").exists())
        yield Office(world, two, [world.control, berlin.host, paris.host], closing)


def test_clients_and_what_follows_them_are_reached_by_way_of_every_host(office: Office) -> None:
    """One after the other, because building it takes longer than all of it."""
    addresses = {each for machine in office.base.machines.values() for each in (machine.address, machine.address6)}
    with Capture(office.world.lab.internet, addresses) as seen:
        forwards_lead_to_a_client_on_another_host_and_follow_it(office)
        full_packets_pass_whole(office)
        a_network_behind_clients_fails_over_between_hosts(office)
        a_host_that_is_cut_off_goes_on_and_comes_back_without_a_double(office)
        a_host_dies_and_what_is_forwarded_to_its_clients_follows_them(office)
    assert len(seen.packets) > 1000
    assert not [each for each in seen.packets if not of_the_mesh(each)]
    assert not [each for each in seen.packets if each.fragment]
    assert not [each for each in seen.packets if WORDS in each.body]


def of_the_mesh(seen: Seen) -> bool:
    """Whether it is WireGuard's, or the word of a kernel that nobody takes WireGuard's there any more."""
    if seen.protocol == ICMP and seen.body[0] == UNREACHABLE:
        quoted = seen.body[8:]
        ports = quoted[(quoted[0] & 15) * 4 :][:4]
        return quoted[9] == UDP and MESH_PORT in (int.from_bytes(ports[:2], "big"), int.from_bytes(ports[2:], "big"))
    return seen.protocol == UDP and MESH_PORT in seen.ports


# Forwarded ports


def forwards_lead_to_a_client_on_another_host_and_follow_it(office: Office) -> None:
    control, berlin, paris = office.hosts
    office.come("alice", berlin)
    user, _ = office.people["alice"]
    row = PortForward(server=office.base.server, user=user, protocol="both", port=OPEN, to_port=SERVICE)
    row.full_clean()
    row.save()
    somebody = office.world.lab.internet
    senders = [Sender(somebody, each) for host in office.hosts for each in addresses_of(office.machine(host))]
    for host in (berlin, paris, control):
        if host != berlin:
            with stream_to(somebody, office.machine(paris).address) as stream:
                office.move("alice", host)
                goes_on_or_is_told(stream)
        for sender in senders:
            office.wait(sender.answered_by_gateway)
            assert somebody.ask_tcp(sender.address, OPEN, WORDS) == sender.expected
    # The hosts themselves reach it as well, and what comes from another machine is not handed on once more.
    assert office.machine(paris).ask_tcp(office.machine(paris).address, OPEN, WORDS) == GATEWAYS[4] + b" " + WORDS
    # Nothing but what is forwarded.
    for sender in senders:
        assert somebody.ask_tcp(sender.address, SERVICE, timeout=NEVER) is None
    row.delete()
    for sender in senders:
        office.wait(partial(unanswered, somebody, sender.address))
        sender.close()


def a_host_dies_and_what_is_forwarded_to_its_clients_follows_them(office: Office) -> None:
    """Their clients find another host by themselves, and are reached there by way of every host that lives."""
    control, berlin, paris = office.hosts
    user, peer = office.people["frank"]
    assert office.base.is_on(user, berlin)
    PortForward.objects.create(server=office.base.server, user=user, protocol="both", port=OPEN, to_port=SERVICE)
    somebody = office.world.lab.internet
    senders = [Sender(somebody, each) for host in (control, paris) for each in addresses_of(office.machine(host))]
    for sender in senders:
        office.wait(sender.answered_by_gateway)
    kill_all(office.machine(berlin))
    office.wait(lambda: office.base.is_on(user, paris) and peer.connected())
    for sender in senders:
        office.wait(sender.answered_by_gateway)
        assert somebody.ask_tcp(sender.address, OPEN, WORDS) == sender.expected
        sender.close()


def stream_to(somebody: Machine, address: str) -> socket.socket:
    """A TCP connection to the forwarded port there, over which something has gone."""
    stream = somebody.socket(address, socket.SOCK_STREAM)
    stream.settimeout(HANGING)
    stream.connect((address, OPEN))
    stream.sendall(WORDS)
    assert stream.recv(2048) == GATEWAYS[4] + b" " + WORDS
    return stream


def goes_on_or_is_told(stream: socket.socket) -> None:
    """Which of both is a matter of whether something was sent before the client was there; it never hangs."""
    with contextlib.suppress(ConnectionError):
        stream.sendall(WORDS)
        assert stream.recv(2048) == GATEWAYS[4] + b" " + WORDS


def unanswered(somebody: Machine, address: str) -> bool:
    return somebody.ask_tcp(address, OPEN, timeout=NEVER) is None


def addresses_of(machine: Machine) -> tuple[str, str]:
    return machine.address, machine.address6


class Sender:
    """One that has asked a forwarded port by UDP, and goes on doing so from the very same port."""

    def __init__(self, where: Machine, address: str) -> None:
        self.address = address
        self.expected = GATEWAYS[6 if ":" in address else 4] + b" " + WORDS
        self._socket = where.socket(address, socket.SOCK_DGRAM)
        self._socket.settimeout(ONE_TRY)
        self._socket.connect((address, OPEN))

    def answered_by_gateway(self) -> bool:
        try:
            self._socket.send(WORDS)
            return self._socket.recv(2048) == self.expected
        except OSError:  # nothing came, or nobody listens there
            return False

    def close(self) -> None:
        self._socket.close()


# The size of packets


def full_packets_pass_whole(office: Office) -> None:
    """From a client to one on another host, across three WireGuards. What is larger than a packet is cut by who sends
    it, or told to be smaller, and never between machines."""
    control, berlin, _ = office.hosts
    office.come("bob", berlin)
    assert office.live("alice").host_id == control.pk
    bob, alice = office.peer("bob").machine, office.live("alice")
    for address in (alice.address, str(alice.address6)):
        for size in (1, 1300, 1392, 1420, 4000, 16000):
            data = bytes(size)
            answer = bob.ask_udp(address, SERVICE, data)
            assert answer is not None
            assert answer.endswith(b" " + data)
        streamed(bob, address, 1 << 20)


def streamed(machine: Machine, address: str, size: int) -> None:
    """So many bytes go there by TCP and come back, each piece behind the sender's address."""
    with machine.socket(address, socket.SOCK_STREAM) as stream:
        stream.settimeout(HANGING)
        stream.connect((address, SERVICE))
        received = 0
        for _ in range(size >> 16):
            stream.sendall(bytes(1 << 16))
            wanted = received + (1 << 16)
            while received < wanted:
                received += stream.recv(1 << 20).count(0)


# Networks behind clients


def a_network_behind_clients_fails_over_between_hosts(office: Office) -> None:
    """Its gateways are clients of the control node and of Berlin, who asks is one of Paris."""
    *_, paris = office.hosts
    behind = {name: office.world.lab.add_behind(office.peer(name).machine, 77) for name in ("alice", "bob")}
    for priority, name in enumerate(behind, 1):
        for network in (NETWORK, NETWORK6):
            user, _ = office.people[name]
            row = ClientNetwork(server=office.base.server, user=user, network=network, priority=priority)
            row.full_clean(meant=["documentation_network"])
            row.save()
    office.come("carol", paris)
    carol = office.peer("carol").machine
    echoes = {
        name: [office.closing.enter_context(Echo(machine, each, SERVICE)) for each in addresses_of(machine)]
        for name, machine in behind.items()
    }

    def reached_behind(name: str) -> bool:
        """Both ways, v4 and v6, with carol's own address, which machine ever answers at the network's."""
        for address, echo in zip(addresses_of(behind[name]), echoes[name], strict=True):
            before = len(echo.seen)
            if carol.ask_tcp(address, SERVICE, timeout=ONE_TRY) is None or len(echo.seen) == before:
                return False
        return True

    office.wait(partial(reached_behind, "alice"))
    office.peer("alice").kill()
    office.wait(partial(reached_behind, "bob"))
    live = office.live("carol")
    for address in (live.address, str(live.address6)):
        assert behind["bob"].ask_tcp(address, SERVICE) is not None
    ClientNetwork.objects.all().delete()


# A host that is cut off


def a_host_that_is_cut_off_goes_on_and_comes_back_without_a_double(office: Office) -> None:
    """Neither Redis nor the control node can be reached from Berlin, whose worker and clients are well."""
    control, berlin, paris = office.hosts
    # Nobody ends by silence meanwhile.
    server = Server.objects.get(pk=office.base.server.pk)
    server.ping_timeout = 360
    server.save()
    stays = [office.come("dave", berlin), office.come("frank", berlin)]
    moves = office.come("erin", berlin)
    machine = office.machine(berlin)
    dave, frank = office.peer("dave"), office.peer("frank")
    with Pinger(frank.machine, stays[0].address) as among, Pinger(dave.machine, FAR) as outside:
        machine.run("nft", "-f", "-", text=CUT.format(office.machine(control)))
        office.wait(lambda: berlin.pk not in heartbeats.read([berlin]))  # it is shown as down
        # One of them connects elsewhere meanwhile.
        office.base.prefer(paris)
        office.peer("erin").kill()
        office.peer("erin").up()
        office.wait(lambda: office.base.is_on(office.people["erin"][0], paris) and office.peer("erin").connected())
        assert office.live("erin").address == moves.address
        machine.run("nft", "delete table inet cut")
        office.wait(lambda: berlin.pk in heartbeats.read([berlin]))
        office.wait(lambda: owners(office, moves.address) == [paris])
        for peer in (dave, frank):
            office.wait(partial(pinged_since, peer, time.time()))
    assert (among.lost, outside.lost) == (0, 0)
    assert [office.live("dave"), office.live("frank")] == stays
    assert Connection.objects.filter(state=State.OPEN, address=moves.address).count() == 1
    for each in (*stays, office.live("erin")):
        assert [host.pk for host in owners(office, each.address)] == [each.host_id]
    # Who moved is reached by those who stayed, through the mesh.
    office.wait(lambda: dave.machine.ask_tcp(moves.address, SERVICE, timeout=ONE_TRY))


def pinged_since(peer: WgPeer, moment: float) -> bool:
    return bool(peer.status().get("last_ping", 0) > moment)


def owners(office: Office, address: str) -> list[Host]:
    """The hosts whose tunnel has a peer with that address."""
    name = office.base.server.interface
    shown = {host: office.machine(host).run("wg", "show", name, "allowed-ips").stdout for host in office.hosts}
    return [host for host, text in shown.items() if f"{address}/32" in text.split()]
