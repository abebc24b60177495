"""A control node that is known by a name has another public address all of a sudden, and is found again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import LazySettings

from servers.models import Host
from tests.host.joined import Installation, Joined, installation
from tests.host.test_net_joining import at_both_hosts
from tests.host.test_two_hosts import GATEWAY
from tests.host.test_two_hosts import World as Office
from tests.lab import Lab, Machine, Pinger
from wgpeers.lifecycle import liveness
from wgpeers.models import Connection

pytestmark = [pytest.mark.host, pytest.mark.long, pytest.mark.django_db(transaction=True)]

NAME, MOVED = "vpn.company.example", "198.51.100.150"
MESH_PORT = 51800
# Its certificate is one that it has made itself.
UNTRUSTED = "--insecure"
# What a router at home does: its LAN looks like itself, and what comes uninvited goes to nobody in there.
ROUTER = """
table ip home {
    chain in { type nat hook prerouting priority dstnat; }
    chain out { type nat hook postrouting priority srcnat; oifname "eth0" masquerade; }
}
"""


class Names:
    """What the DNS of this internet says, for the machines that were told of it."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def say(self, address: str) -> None:
        self._file.write_text(f"127.0.0.1 localhost\n{address} {NAME}\n")

    def known_to(self, machine: Machine) -> Machine:
        machine.run("mount", "--bind", self._file, "/etc/hosts")
        return machine


@pytest.fixture
def world(transactional_db: None, settings: LazySettings) -> Iterator[Installation]:
    with installation(settings, name=NAME) as world:
        yield world


@pytest.fixture
def names(world: Installation) -> Names:
    made = Names(world.directory / "names")
    made.say(world.stack.machine.address)
    made.known_to(world.stack.machine)
    return made


def behind_a_router(lab: Lab) -> tuple[Machine, Machine]:
    """A machine that nobody out there reaches first, and its router."""
    router = lab.add_client()
    router.run("nft", "-f", "-", text=ROUTER)
    return lab.add_behind(router, 60), router


def test_hosts_and_clients_find_a_control_node_whose_address_changed(world: Installation, names: Names) -> None:
    home, router = behind_a_router(world.lab)
    berlin, paris = world.add("Berlin", names.known_to(home)), world.add("Paris", names.known_to(world.lab.add_host()))
    Host.objects.filter(pk=berlin.host.pk).update(public_address=router.address)
    for each in (berlin, paris):
        world.join(each)
    office = at_both_hosts(world, berlin)
    # Longer than it takes to find the control node, as it is in earnest.
    office.server.ping_timeout = 300
    office.server.save()
    router.run("nft", f"add rule ip home in iifname eth0 udp dport {office.server.port} dnat to {home.address}")
    office.prefer(berlin.host)
    alice, hers = office.hire("alice", names.known_to(world.lab.add_client()), UNTRUSTED)
    hers.up()
    world.wait(hers.connected)
    office.prefer(world.control)
    bob, his = office.hire("bob", names.known_to(world.lab.add_client()), UNTRUSTED)
    his.up()
    world.wait(his.connected)
    before = office.live(alice)
    assert before is not None
    assert office.is_on(alice, berlin.host)
    assert office.is_on(bob, world.control)

    with Pinger(hers.machine, GATEWAY) as pinger:
        moves(world.stack.machine)
        names.say(MOVED)
        moved = time.time()
        for each in (berlin, paris):
            world.wait(lambda each=each: sends_to(each) == f"{MOVED}:{MESH_PORT}")
            world.wait(lambda each=each: said_since(world, each, moved))
        # Her pings get through the mesh again, and until then her client was told to stay.
        world.wait(lambda: hers.connected().get("last_ping", 0) > moved and ping_counts(office, before, moved))
        assert hers.connected()["reconnects"] == 0
    assert pinger.lost == 0
    assert office.live(alice) == before

    # Whoever was connected to the control node itself looks its name up, and so does whoever comes now.
    world.wait(lambda: his.connected().get("last_ping", 0) > moved)
    assert his.machine.pings(GATEWAY)
    office.prefer(berlin.host)
    carol, third = office.hire("carol", names.known_to(world.lab.add_client()), UNTRUSTED)
    third.up()
    world.wait(third.connected)
    assert office.is_on(carol, berlin.host)
    for peer in (hers, his, third):
        peer.end()


def moves(machine: Machine) -> None:
    """As when its provider gives it another address: the one before is nobody's."""
    machine.ip("addr", "del", f"{machine.address}/24", "dev", machine.interface)
    machine.ip("addr", "add", f"{MOVED}/24", "dev", machine.interface)
    machine.ip("route", "add", "default", "via", "198.51.100.254")
    machine.address = MOVED


def sends_to(each: Joined) -> str:
    """Where its WireGuard has the control node: the machine that it hears Redis from."""
    lines = each.machine.run("wg", "show", "wgm0", "endpoints").stdout.split()
    return next((where for where in lines if where.startswith(f"{MOVED}:")), "")


def said_since(world: Installation, each: Joined, moment: float) -> bool:
    alive = world.alive(each)
    return bool(alive) and isinstance(alive, dict) and alive["time"] > moment


def ping_counts(office: Office, connection: Connection, moment: float) -> bool:
    """Whether its deadline was moved by a ping since."""
    until = liveness.deadlines([connection.public_id]).get(connection.public_id, 0.0)
    return until > moment + office.server.ping_timeout
