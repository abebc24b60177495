"""The real client against the real server: everything through the tunnel in both families, what is kept outside, and
packets after a reconnect."""

from __future__ import annotations

import json
import time
from functools import partial

import pytest

from servers.models import Route
from tests.host.test_end_to_end import World, running, world
from tests.lab import ONE_TRY, Echo, Machine
from tests.stack import WgPeer
from wgpeers.lifecycle import ending
from wgpeers.models import EndReason

__all__ = ["running", "world"]
pytestmark = [pytest.mark.host, pytest.mark.django_db(transaction=True)]

FAR, FAR6 = "203.0.113.9", "2001:db8:9::9"  # on the internet, through the tunnel
KEPT, KEPT6 = "203.0.113.77", "2001:db8:77::7"  # on the internet too, but not through the tunnel
PORT = 7000


def test_packets_get_through_after_every_reconnect(world: World) -> None:
    """With a new key each time: the server moves the address from one peer to the next, and the client begins anew."""
    user, peer = world.hire("alice")
    peer.up()
    world.wait(peer.connected)
    keys = set[str]()
    with Echo(world.lan, world.lan.address, PORT):
        for count in range(1, 5):
            connection = world.live(user)
            assert connection is not None
            keys.add(connection.wg_public_key)
            ending.end([connection], EndReason.ADMIN, time.time())
            world.wait(partial(has_reconnected, peer, count))
            world.reaches_lan(peer)
    assert len(keys) == 4
    peer.end()


def send_everything(world: World) -> None:
    """Everything in both families, with NAT, but for two networks."""
    world.lab.add_far_address(FAR, FAR6, KEPT, KEPT6)
    world.server.ipv6 = True
    world.server.network6 = "fd09::/64"
    world.server.search_domains, world.server.routing_domains = "corp.example", "lab.example"
    world.server.dns_servers = "10.50.0.53"
    world.server.save()
    for network in ("0.0.0.0/0", "::/0"):
        Route.objects.create(server=world.server, network=network, nat=True)
    for network in ("203.0.113.64/26", "2001:db8:77::/64"):
        Route.objects.create(server=world.server, network=network, net_gateway=True, nat=False)


def test_everything_through_the_tunnel_but_what_is_kept_outside(world: World) -> None:
    """The last one: the server stays like this."""
    send_everything(world)
    _, peer = world.hire("alice")
    peer.up()
    status = world.wait(peer.connected)
    assert isinstance(status, dict)
    kept = "; not 203.0.113.64/26, 2001:db8:77::/64"
    assert status["routes"] == "IPv4 and IPv6: everything but this machine's LANs" + kept
    assert status["mtu"] == 1420
    assert status["dns"].startswith("not set: ")  # this machine has no manager of name servers
    internet, host = world.lab.internet, world.stack.machine
    for far, away, own, host_address in (
        (FAR, KEPT, peer.machine.address, host.address),
        (FAR6, KEPT6, peer.machine.address6, host.address6),
    ):
        with Echo(internet, far, PORT) as inside, Echo(internet, away, PORT) as outside:
            # Through the tunnel it looks like the host from there; around it, like the client itself.
            world.wait(partial(answered_as, peer.machine, far, host_address))
            world.wait(partial(answered_as, peer.machine, away, own))
            assert inside.seen
            assert outside.seen
    shown = peer.machine.run(*peer.command("status")).stdout
    assert "through tunnel" in shown
    (said,) = json.loads(peer.machine.run(*peer.command("status", "--json")).stdout)
    assert said.keys() == status.keys()
    assert (said["state"], said["public_key"]) == ("connected", status["public_key"])
    peer.end()
    with Echo(internet, FAR, PORT):
        world.wait(partial(answered_as, peer.machine, FAR, peer.machine.address))


def answered_as(machine: Machine, address: str, sender: str) -> bool:
    """Whether a service out there answers, and takes us for ``sender``."""
    return machine.ask_udp(address, PORT, timeout=ONE_TRY) == f"{sender} hello".encode()


def has_reconnected(peer: WgPeer, count: int) -> bool:
    return bool(peer.connected().get("reconnects", 0) >= count)
