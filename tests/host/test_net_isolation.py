"""Who meets whom: clients of one server, networks behind them, and two servers on one host, which never do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from servers.hostnet.state import Forward, Interface, Route
from tests.host.firewalled import WEB_PORT, FirewalledHost
from tests.lab import HANGING, NEVER, Echo, Lab, Machine, until

pytestmark = pytest.mark.host

SERVICE, OPEN = 7000, 8000
ALICE, BOB, CHARLIE = ("10.9.0.11", "fd01::11"), ("10.9.0.12", "fd01::12"), ("10.10.0.13", "fd02::13")
BEHIND_ALICE, BEHIND_BOB, BEHIND_CHARLIE = ((f"10.{number}.0.2", f"2001:db8:{number}::2") for number in (77, 78, 79))
PLAIN = (Route("10.51.0.0/24", False), Route("2001:db8:51::/64", False))
NAT = (Route("10.50.0.0/24", True), Route("2001:db8:50::/64", True))
EVERYTHING = (Route("0.0.0.0/0", True), Route("::/0", True))
EVERYTHING_PLAIN = (Route("0.0.0.0/0", False), Route("::/0", False))


@dataclass
class Scene:
    """Alice and Bob are on server one, Charlie on server two. Behind each is a network; all send everything into their
    tunnels. ``plain`` and ``nat`` are networks that the host routes."""

    at: FirewalledHost
    machines: dict[str, Machine]
    echoes: list[Echo]

    def arrived(self) -> int:
        """Packets that came out of tunnels so far."""
        return self.at.host.packets("wgs1")[0] + self.at.host.packets("wgs2")[0]

    def says(self, who: str, address: str, *, never: bool = False) -> list[bytes | None]:
        """What ``address`` answers to machine ``who``, by TCP and UDP."""
        timeout = NEVER if never else HANGING
        machine, data = self.machines[who], f"from {who}".encode()
        return [ask(address, SERVICE, data, timeout) for ask in (machine.ask_tcp, machine.ask_udp)]

    def nothing_gets(self, who: str, *addresses: str) -> None:
        """Nothing gets from ``who`` to any of ``addresses``, not even one way."""
        machine, data = self.machines[who], f"from {who}".encode()
        asks: list[Callable[[], object]] = [
            ask
            for address in addresses
            for ask in (
                partial(machine.ask_tcp, address, SERVICE, data, NEVER),
                partial(machine.ask_udp, address, SERVICE, data, NEVER),
                partial(machine.pings, address, NEVER),
            )
        ]
        with ThreadPoolExecutor(len(asks)) as pool:  # one after the other is mostly waiting
            assert not any(pool.map(lambda ask: ask(), asks)), who
        assert not any(f"from {who}".encode() in echo.seen for echo in self.echoes)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    one = Interface("wgs1", "one", 51820, ("10.9.0.1/24", "fd01::1/64"), 0, False, 360, PLAIN + NAT, ())
    two = Interface("wgs2", "two", 51821, ("10.10.0.1/24", "fd02::1/64"), 0, True, 360, EVERYTHING, ())
    with Lab() as lab, ExitStack() as stack:
        at = FirewalledHost(lab, one, two)
        machines = {name: lab.add_client() for name in ("alice", "bob", "charlie")}
        lans = {"nat": lab.add_lan(at.host, 50, routed=True), "plain": lab.add_lan(at.host, 51, routed=True)}
        clients = (("alice", "wgs1", ALICE, 77), ("bob", "wgs1", BOB, 78), ("charlie", "wgs2", CHARLIE, 79))
        behind = {}
        for name, server, addresses, number in clients:
            behind[f"behind {name}"] = lab.add_behind(machines[name], number)
            networks = (f"10.{number}.0.0/24", f"2001:db8:{number}::/64")
            at.connect(machines[name], server, name, addresses, ("0.0.0.0/0", "::/0"), networks=networks)
        machines |= lans | behind
        echoes = [
            stack.enter_context(Echo(machine, address, SERVICE))
            for machine in machines.values()
            for address in ("0.0.0.0", "::")
        ]
        machines["host"] = at.host
        yield Scene(at, machines, echoes)


@pytest.fixture(autouse=True)
def forgotten(scene: Scene) -> None:
    for echo in scene.echoes:
        echo.seen.clear()


def answered(who: str, address: str) -> list[bytes]:
    return [f"{address} from {who}".encode()] * 2


def test_clients_of_a_server_reach_each_other_only_where_it_is_switched_on(scene: Scene) -> None:
    scene.nothing_gets("alice", *BOB)
    with scene.at.altered("wgs1", inter_client=True):
        for mine, theirs in zip(ALICE, BOB, strict=True):
            assert scene.says("alice", theirs) == answered("alice", mine)
    for echo in scene.echoes:
        echo.seen.clear()
    scene.nothing_gets("alice", *BOB)


def test_networks_behind_clients_are_reached_both_ways_whatever_clients_may(scene: Scene) -> None:
    for bob, alice, behind_alice, behind_bob in zip(BOB, ALICE, BEHIND_ALICE, BEHIND_BOB, strict=True):
        assert scene.says("bob", behind_alice) == answered("bob", bob)
        assert scene.says("behind alice", bob) == answered("behind alice", behind_alice)
        assert scene.says("behind bob", behind_alice) == answered("behind bob", behind_bob)
        # To its own gateway it has a shorter way, without the tunnel.
        assert scene.says("alice", behind_bob) == answered("alice", alice)


def test_host_reaches_networks_behind_clients_but_offers_them_no_more_than_clients(scene: Scene) -> None:
    for behind, gateway in zip(BEHIND_ALICE, ("10.9.0.1", "fd01::1"), strict=True):
        assert scene.says("host", behind) == answered("host", gateway)
        with Echo(scene.at.host, gateway, WEB_PORT), Echo(scene.at.host, gateway, SERVICE):
            assert scene.machines["behind alice"].ask_tcp(gateway, WEB_PORT) == f"{behind} hello".encode()
            assert scene.says("behind alice", gateway, never=True) == [None, None]


def test_routed_networks_reach_those_behind_clients_only_without_nat(scene: Scene) -> None:
    for behind, plain in zip(BEHIND_ALICE, ("10.51.0.2", "2001:db8:51::2"), strict=True):
        assert scene.says("plain", behind) == answered("plain", plain)
        assert scene.says("behind alice", plain) == answered("behind alice", behind)
    scene.nothing_gets("nat", *BEHIND_ALICE, *ALICE)
    for nat, host in (("10.50.0.2", "10.50.0.1"), ("2001:db8:50::2", "2001:db8:50::1")):
        assert scene.says("behind alice", nat) == answered("behind alice", host)


FOREIGN: dict[str, dict[str, Any]] = {
    "routes of everything with NAT": {"routes": EVERYTHING},
    "routes of everything without NAT": {"routes": EVERYTHING_PLAIN},
    "no restriction": {"routes": (), "restrict": False},
    "routes to the other's networks": {
        "routes": tuple(Route(n, False) for n in ("10.9.0.0/24", "10.77.0.0/24", "fd01::/64", "2001:db8:77::/64"))
    },
    "netmaps of the other's networks": {
        "routes": (
            Route("10.60.0.0/24", False, netmap="10.9.0.0/24"),
            Route("10.61.0.0/24", True, netmap="10.77.0.0/24"),
            Route("fd60::/64", False, netmap="fd01::/64"),
            Route("fd61::/64", True, netmap="2001:db8:77::/64"),
        )
    },
}


@pytest.mark.parametrize("how", [*FOREIGN])
def test_two_servers_on_one_host_never_meet(scene: Scene, how: str) -> None:
    with scene.at.altered("wgs2", **FOREIGN[how]):
        scene.nothing_gets("charlie", *ALICE, *BEHIND_ALICE)
        scene.nothing_gets("behind charlie", *ALICE, *BEHIND_ALICE)
        if "netmaps" in how:
            scene.nothing_gets("charlie", "10.60.0.11", "10.61.0.2", "fd60::11", "fd61::2")
        # Nor does the other, for whom nothing changed.
        scene.nothing_gets("alice", *CHARLIE, *BEHIND_CHARLIE)
        scene.nothing_gets("behind alice", *CHARLIE, *BEHIND_CHARLIE)


def test_two_servers_do_not_meet_by_forwarded_ports(scene: Scene) -> None:
    scene.at.forward("alice", *(Forward(protocol, OPEN, OPEN, SERVICE) for protocol in ("tcp", "udp")))
    lans = ("10.50.0.1", "2001:db8:50::1", "10.9.0.1", "fd01::1", "10.10.0.1", "fd02::1")
    for who in ("charlie", "behind charlie", "bob"):
        machine, before = scene.machines[who], scene.arrived()
        for address in lans:
            assert machine.ask_tcp(address, OPEN, f"from {who}".encode(), NEVER) is None
            assert machine.ask_udp(address, OPEN, f"from {who}".encode(), NEVER) is None
        until(lambda before=before: scene.arrived() >= before + 2 * len(lans))  # type: ignore[misc]
    assert scene.machines["nat"].ask_tcp("10.50.0.1", OPEN) is not None
    assert scene.machines["nat"].ask_tcp("2001:db8:50::1", OPEN) is not None
    scene.at.forward("alice")


def test_names_of_clients_are_not_told_outside_of_tunnels(scene: Scene) -> None:
    """A neighbour sends packets for a gateway's address to the host, which takes them on any link."""
    with ExitStack() as stack:
        for gateway in ("10.9.0.1", "fd01::1"):
            for port in (53, WEB_PORT, SERVICE):
                stack.enter_context(Echo(scene.at.host, gateway, port))
        for gateway in ("10.9.0.1", "fd01::1"):
            assert scene.machines["plain"].ask_udp(gateway, SERVICE) is not None
            for port in (53, WEB_PORT):
                assert scene.machines["plain"].ask_tcp(gateway, port, timeout=NEVER) is None
            assert scene.machines["plain"].ask_udp(gateway, 53, timeout=NEVER) is None
            assert scene.machines["alice"].ask_udp(gateway, 53) is not None
            assert scene.at.host.ask_udp(gateway, 53) is not None
