"""The real client against the real server: everything through the tunnel in both families, what is kept outside, and
how soon packets get through after a reconnect."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import Self

import pytest

from servers.models import Route
from tests.host.test_end_to_end import World, world
from tests.lab import Echo, Machine, until
from tests.stack import WgPeer
from wgpeers.lifecycle import ending
from wgpeers.models import EndReason

__all__ = ["world"]
pytestmark = [pytest.mark.host, pytest.mark.django_db(transaction=True)]

FAR, FAR6 = "203.0.113.9", "2001:db8:9::9"  # on the internet, through the tunnel
KEPT, KEPT6 = "203.0.113.77", "2001:db8:77::7"  # on the internet too, but not through the tunnel
PORT = 7000


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
            assert answered_as(peer.machine, away, own)
            assert inside.seen
            assert outside.seen
    shown = peer.machine.run(*peer.command("status")).stdout
    assert "through tunnel" in shown
    peer.end()
    with Echo(internet, FAR, PORT):
        assert answered_as(peer.machine, FAR, peer.machine.address)


def answered_as(machine: Machine, address: str, sender: str) -> bool:
    """Whether a service out there answers, and takes us for ``sender``."""
    return machine.ask_udp(address, PORT) == f"{sender} hello".encode()


def has_reconnected(peer: WgPeer, count: int) -> bool:
    return bool(peer.connected().get("reconnects", 0) >= count)


class Prober:
    """Asks a TCP service again and again, a new connection each time; ``answered`` is when it was, in Unix seconds."""

    def __init__(self, machine: Machine, address: str) -> None:
        self.answered: list[float] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(machine, address), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(10)

    def _run(self, machine: Machine, address: str) -> None:
        while not self._ending.wait(0.01):
            if machine.ask_tcp(address, PORT, timeout=0.1):
                self.answered.append(time.time())

    def after(self, moment: float) -> float | None:
        """Seconds from a moment to the next answer."""
        return next((when - moment for when in self.answered if when >= moment), None)


def test_packets_get_through_at_once_after_every_reconnect(world: World) -> None:
    """With a new key each time: the server moves the address from one peer to the next, and the client begins anew."""
    user, peer = world.hire("alice")
    peer.up()
    world.wait(peer.connected)
    keys, delays = set[str](), list[float]()
    with Echo(world.lan, world.lan.address, PORT), Prober(peer.machine, world.lan.address) as prober:
        for count in range(1, 5):
            connection = world.live(user)
            assert connection is not None
            keys.add(connection.wg_public_key)
            ending.end([connection], EndReason.ADMIN, time.time())
            world.wait(partial(has_reconnected, peer, count), timeout=30)
            delay = until(partial(prober.after, peer.status()["since"]))
            assert delay is not None
            delays.append(delay)
    print("seconds from the first good ping to the next answer of the LAN:", [round(delay, 3) for delay in delays])
    assert len(keys) == 4
    assert max(delays) < 0.5
    peer.end()
