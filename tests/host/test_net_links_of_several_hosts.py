"""Links that OpenVPN carries between servers that are on two hosts each, with real packets and the real openvpn:
clients are on the hosts that do not carry the link, and those that do die."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from django.conf import LazySettings

from core.clock import moment
from servers import link_keys, outside_links
from servers.models import Carrier, Host, OutsideLink, Route, Server, ServerHost, ServerLink
from tests.failover import FAR, FAR6, kill_all
from tests.host.joined import Joined
from tests.host.linked import SERVICE, SITE, SITE6, Apart, Linked, on_two_hosts
from tests.lab import Echo, Machine

pytestmark = [pytest.mark.host, pytest.mark.long, pytest.mark.django_db(transaction=True)]

PORT = 1195


@dataclass
class Several:
    """Office is on the control side's machine and on Rome, Lab on Berlin and Oslo. Clients are on the first of each,
    and the link is carried by Rome and Oslo. ``far`` is a network behind Oslo that Lab has a route to without NAT, and
    ``mapped`` one that its clients know by other addresses."""

    apart: Apart
    rome: Joined
    oslo: Joined
    far: Machine
    mapped: Machine

    @property
    def scene(self) -> Linked:
        return self.apart.scene

    def carried_by(self, *machines: Machine) -> bool:
        every = [self.apart.world.stack.machine, *(each.machine for each in self.apart.world.machines)]
        alive = [each for each in every if each.processes()]
        return all(("wgo" in each.ip("-o", "link", "show")) == (each in machines) for each in alive)

    def grow(self) -> None:
        """Clients come to the first hosts, as there are no others yet; then others are there, and before them."""
        self.scene.connect()
        for server, joined in ((self.scene.office.server, self.rome), (self.scene.lab.server, self.oslo)):
            self.apart.world.join(joined)
            ServerHost.objects.filter(server=server).update(priority=2)
            ServerHost.objects.create(server=server, host=joined.host)

    def die(self, joined: Joined) -> float:
        """All of that machine at once; when."""
        kill_all(joined.machine)
        for name in ("wgo2", "wgo3", "wgo5"):
            joined.machine.run("ip", "link", "del", name, check=False)
        joined.worker = None
        return time.monotonic()


@pytest.fixture
def several(transactional_db: None, settings: LazySettings) -> Iterator[Several]:
    with on_two_hosts(settings) as apart, contextlib.ExitStack() as echoes:
        rome, oslo = (apart.world.add(name) for name in ("Rome", "Oslo"))
        far, mapped = (apart.world.lab.add_lan(oslo.machine, number, routed=True) for number in (54, 55))
        for network, real in (("10.54.0.0/24", ""), ("10.60.0.0/24", "10.55.0.0/24")):
            Route.objects.create(server=apart.scene.lab.server, network=network, netmap=real, nat=False)
        for machine in (far, mapped):
            echoes.enter_context(Echo(machine, "0.0.0.0", SERVICE))
        yield Several(apart, rome, oslo, far, mapped)


def test_the_hosts_of_both_reach_each_other_by_whichever_carries_it(several: Several) -> None:
    scene, apart = several.scene, several.apart
    control, berlin = apart.world.stack.machine, apart.berlin.machine
    link = ServerLink(first=scene.office.server, second=scene.lab.server, carrier=Carrier.OPENVPN, port=PORT)
    link.full_clean()
    link.save()
    several.grow()
    scene.wait(lambda: several.carried_by(several.rome.machine, several.oslo.machine))
    scene.reach_each_other()
    routes_are_reached(several)
    scene.in_the_gateways_name(link)
    scene.in_their_own_names(link)
    died = several.die(several.rome)
    scene.reach_each_other()
    print(f"the end that listens died: reached again after {time.monotonic() - died:.1f} s")
    assert several.carried_by(control, several.oslo.machine)
    died = several.die(several.oslo)
    scene.reach_each_other()
    print(f"the end that sends died: reached again after {time.monotonic() - died:.1f} s")
    assert several.carried_by(control, berlin)
    scene.until_seen_as(scene.alice.machine, apart.lan.address, scene.alice.addresses[0])
    scene.in_the_gateways_name(link)
    scene.in_their_own_names(link)
    scene.cut_by_unlinking(link, apart.lan.address)


def routes_are_reached(several: Several) -> None:
    """By the host that carries the link, also by other addresses than the real ones; both may begin."""
    scene, alice = several.scene, several.scene.alice
    scene.until_seen_as(alice.machine, several.far.address, alice.addresses[0])
    mapped = several.mapped.address.replace("10.55.", "10.60.")
    scene.until_seen_as(alice.machine, mapped, alice.addresses[0])
    assert scene.seen_as(several.far, alice.addresses[0]) == several.far.address
    assert scene.seen_as(several.mapped, alice.addresses[0]) == mapped


def test_another_installation_finds_the_host_that_carries_it_now(several: Several) -> None:
    scene, world = several.scene, several.apart.world
    control = world.stack.machine
    outside(scene.office.server, scene.lab.server, [several.rome.host, world.control])
    several.grow()
    scene.wait(lambda: several.carried_by(several.rome.machine, several.oslo.machine))
    scene.reach_each_other()
    died = several.die(several.rome)
    scene.reach_each_other()
    print(f"the end that listens died: reached again after {time.monotonic() - died:.1f} s")
    assert several.carried_by(control, several.oslo.machine)


def test_a_route_by_the_mesh_follows_to_another_host_at_once(several: Several) -> None:
    """Each host of Lab leads to it; who answers sees which."""
    scene, world = several.scene, several.apart.world
    world.lab.add_far_address(FAR, FAR6)
    for address, length in ((FAR, 32), (FAR6, 128)):
        Route.objects.create(server=scene.lab.server, network=f"{address}/{length}")
    scene.link()
    several.grow()
    with Echo(world.lab.internet, FAR, SERVICE), Echo(world.lab.internet, FAR6, SERVICE):
        for far, by in ((FAR, several.oslo.machine.address), (FAR6, several.oslo.machine.address6)):
            scene.until_seen_as(scene.alice.machine, far, by)
        died = several.die(several.oslo)
        berlin = several.apart.berlin.machine
        for far, by in ((FAR, berlin.address), (FAR6, berlin.address6)):
            scene.until_seen_as(scene.alice.machine, far, by)
        print(f"the way died: reached again after {time.monotonic() - died:.1f} s")


def outside(office: Server, lab: Server, listen: list[Host]) -> None:
    """Each of both as an installation of its own has it: neither is told anything of the other."""
    keys = link_keys.make(moment(time.time()))
    ours, theirs = "10.9.0.0/24, fd09::/64", f"10.19.0.0/24, fd19::/64, {SITE}, {SITE6}"
    for server, mine, there, listens in ((office, ours, theirs, True), (lab, theirs, ours, False)):
        OutsideLink.objects.create(
            server=server,
            name=f"of {server}",
            ours=mine,
            theirs=there,
            port=PORT,
            listens=listens,
            addresses="" if listens else ", ".join(host.public_address for host in listen),
            keys=outside_links.sealed(keys.of(listens=listens)),
        )
