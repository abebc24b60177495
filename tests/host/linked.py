"""Two servers that are linked, on real parts: a client of each, and a network behind one of them."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from django.conf import LazySettings

from servers.models import ClientNetwork, Host, Route, Server, ServerHost, ServerLink
from tests.dnsclient import NOERROR, Answer, lookup
from tests.host.joined import Installation, Joined, installation
from tests.host.test_end_to_end import World
from tests.host.test_end_to_end import office as office_on
from tests.lab import HANGING, NEVER, ONE_TRY, Echo, Machine
from tests.stack import WgPeer
from users.models import Organization, VpnUser

SERVICE = 7000
OFFICE_GATEWAY, LAB_GATEWAY = ("10.9.0.1", "fd09::1"), ("10.19.0.1", "fd19::1")
SITE, SITE6 = "10.77.0.0/24", "2001:db8:77::/64"


@dataclass
class Client:
    user: VpnUser
    peer: WgPeer
    addresses: tuple[str, str] = ("", "")

    @property
    def machine(self) -> Machine:
        return self.peer.machine


@dataclass
class Linked:
    """Alice is a client of the server Office, Bob one of Lab, with a network behind him."""

    office: World
    lab: World
    alice: Client
    bob: Client
    site: Machine
    echoes: list[Echo]

    def wait(self, condition: Callable[[], object]) -> object:
        return self.office.wait(condition)

    def link(self, **fields: bool) -> ServerLink:
        row = ServerLink(first=self.office.server, second=self.lab.server, **fields)
        row.full_clean()
        row.save()
        return row

    def connect(self) -> None:
        for world, client in ((self.office, self.alice), (self.lab, self.bob)):
            client.peer.up()
            self.wait(client.peer.connected)
            live = world.live(client.user)
            assert live is not None
            client.addresses = (live.address, str(live.address6))

    def end(self) -> None:
        for client in (self.alice, self.bob):
            client.peer.end()

    def seen_as(self, who: Machine, address: str) -> str:
        """The address that ``who`` has at ``address``; empty where it does not get there."""
        answer = who.ask_tcp(address, SERVICE, timeout=ONE_TRY)
        return answer.decode().partition(" ")[0] if answer else ""

    def until_seen_as(self, who: Machine, address: str, name: str) -> None:
        self.wait(lambda: self.seen_as(who, address) == name)

    def reach_each_other(self) -> None:
        """Clients and the network behind one of them, with their own addresses."""
        pairs = zip(self.alice.addresses, self.bob.addresses, self.site_addresses, strict=True)
        for alice, bob, site in pairs:
            for who, address, own in (
                (self.alice.machine, bob, alice),
                (self.bob.machine, alice, bob),
                (self.alice.machine, site, alice),
                (self.site, alice, site),
            ):
                self.until_seen_as(who, address, own)

    @property
    def site_addresses(self) -> tuple[str, str]:
        return (self.site.address, self.site.address6)

    def in_the_gateways_name(self, link: ServerLink) -> None:
        """With NAT, each appears at the other with the address of the gateway there."""
        link.masquerade = True
        link.save()
        for number in (0, 1):
            alice, bob, site = (
                each[number] for each in (self.alice.addresses, self.bob.addresses, self.site_addresses)
            )
            self.until_seen_as(self.alice.machine, bob, LAB_GATEWAY[number])
            self.until_seen_as(self.alice.machine, site, LAB_GATEWAY[number])
            self.until_seen_as(self.bob.machine, alice, OFFICE_GATEWAY[number])

    def in_their_own_names(self, link: ServerLink) -> None:
        link.masquerade = False
        link.save()
        self.reach_each_other()

    def cut_by_unlinking(self, link: ServerLink, *routed: str) -> None:
        """Connections that are open end with the link; ``routed`` are more addresses that Alice has some to."""
        flows = [Flow(self.alice.machine, each) for each in (*self.bob.addresses, *self.site_addresses, *routed)]
        assert all(flow.goes_on() for flow in flows)
        link.delete()
        for flow in flows:
            self.until_cut(flow)
        self.nothing_passes()

    def until_cut(self, flow: Flow) -> None:
        self.wait(lambda: not flow.goes_on(NEVER))
        flow.close()

    def nothing_passes(self) -> None:
        for address in (*self.bob.addresses, *self.site_addresses):
            assert self.alice.machine.ask_tcp(address, SERVICE, timeout=NEVER) is None, address
        for address in self.alice.addresses:
            for who in (self.bob.machine, self.site):
                assert who.ask_tcp(address, SERVICE, timeout=NEVER) is None, address

    def knows(self, client: Client, gateway: str, name: str, address: str) -> bool:
        """Whether the DNS of ``client``'s own server has ``name``."""
        answer = lookup(client.machine, gateway, name, timeout=ONE_TRY)
        return answer == Answer(NOERROR, frozenset([address]))


@contextlib.contextmanager
def linked(office: World, host: Host) -> Iterator[Linked]:
    """``office`` is a server that runs; Lab comes beside it, on ``host``."""
    for_lab = Organization.objects.create(name="Labs", ca_certificate=office.organization.ca_certificate)
    Server.objects.filter(pk=office.server.pk).update(ipv6=True, network6="fd09::/64", dns_mapping=True)
    office.server.refresh_from_db()
    office.server.save()
    server = Server.objects.create(
        name="Lab", network="10.18.0.0/24", wg_network="10.19.0.0/24", ipv6=True, network6="fd19::/64", port=51821,
        started=True, dns_mapping=True, dns_zone="lab",
        ping_interval=office.server.ping_interval, ping_timeout=office.server.ping_timeout,
    )  # fmt: skip
    server.organizations.add(for_lab)
    ServerHost.objects.create(server=server, host=host)
    lab = dataclasses.replace(office, server=server, organization=for_lab, host=host)
    office.wait(lambda: not ServerHost.objects.filter(public_key="").exists())
    alice, bob = Client(*office.hire("alice")), Client(*lab.hire("bob"))
    site = office.lab.add_behind(bob.machine, 77)
    for network in (SITE, SITE6):
        row = ClientNetwork(server=server, user=bob.user, network=network)
        row.full_clean(meant=["documentation_network"])
        row.save()
    with contextlib.ExitStack() as closing:
        echoes = [
            closing.enter_context(Echo(machine, address, SERVICE))
            for machine in (alice.machine, bob.machine, site)
            for address in ("0.0.0.0", "::")
        ]
        scene = Linked(office, lab, alice, bob, site, echoes)
        try:
            yield scene
        except BaseException:
            print(office.stack.log())
            raise
        finally:
            scene.end()


ROUTED, ROUTED6 = "10.51.0.0/24", "2001:db8:51::/64"  # without NAT, and with it


def route_to_lan(server: Server) -> None:
    for network, nat in ((ROUTED, False), (ROUTED6, True)):
        row = Route(server=server, network=network, nat=nat)
        row.full_clean(meant=["documentation_network"])
        row.save()


@dataclass
class Apart:
    """Office is on the control side's machine, Lab on Berlin's, with ``lan`` behind that, which Lab has routes to. They
    share no host."""

    world: Installation
    berlin: Joined
    scene: Linked
    lan: Machine


@contextlib.contextmanager
def on_two_hosts(settings: LazySettings) -> Iterator[Apart]:
    with installation(settings) as world, contextlib.ExitStack() as echoes:
        berlin = world.add("Berlin")
        world.join(berlin)
        office = office_on(world.lab, world.stack, world.control)
        with linked(office, berlin.host) as scene:
            lan = world.lab.add_lan(berlin.machine, 51, routed=True)
            route_to_lan(scene.lab.server)
            for machine, address in ((lan, "0.0.0.0"), (lan, "::"), (office.lan, "0.0.0.0")):
                echoes.enter_context(Echo(machine, address, SERVICE))
            yield Apart(world, berlin, scene, lan)


class Flow:
    """An open TCP connection to a machine's echo."""

    def __init__(self, who: Machine, address: str) -> None:
        self._socket = who.socket(address, socket.SOCK_STREAM)
        self._socket.settimeout(HANGING)
        self._socket.connect((address, SERVICE))

    def goes_on(self, timeout: float = HANGING) -> bool:
        self._socket.settimeout(timeout)
        try:
            self._socket.sendall(b"more")
            return bool(self._socket.recv(65536))
        except OSError:
            return False

    def carries(self, size: int, count: int) -> bool:
        """Whether as many segments of ``size`` bytes get there, and as much comes back."""
        self._socket.settimeout(HANGING)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for _ in range(count):
                self._socket.sendall(bytes(size))
                left = size
                while left > 0:
                    if not (received := self._socket.recv(65536)):
                        return False
                    left -= len(received)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()
