"""Routes of a server: with NAT and without, out of one interface only, netmapped, and none at all. Real packets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from servers.hostnet.state import Interface, Route
from tests.host.firewalled import FirewalledHost
from tests.lab import HANGING, NEVER, Echo, Lab, Machine, segment_sizes

pytestmark = pytest.mark.host

SERVICE = 7000
FAR, FAR6 = "203.0.113.9", "2001:db8:9::9"
ROUTES = (
    Route("10.50.0.0/24", True),
    Route("2001:db8:50::/64", True),
    Route("10.51.0.0/24", False),
    Route("2001:db8:51::/64", False),
    Route("10.60.0.0/24", False, netmap="10.52.0.0/24"),
    Route("fd60::/64", False, netmap="2001:db8:52::/64"),
    Route("10.61.0.0/24", True, netmap="10.53.0.0/24"),
    Route("fd61::/64", True, netmap="2001:db8:53::/64"),
)
ALICE, ALICE6 = "10.9.0.11", "fd01::11"
BEHIND, BEHIND6 = "10.77.0.2", "2001:db8:77::2"


@dataclass
class Scene:
    """Alice sends everything into the tunnel of ``wgs1``, and ``behind`` is on a network behind her."""

    at: FirewalledHost
    alice: Machine
    behind: Machine
    nat: Machine  # 10.50, which knows no way back
    plain: Machine  # 10.51
    mapped: Machine  # 10.52, known as 10.60, without NAT
    mapped_nat: Machine  # 10.53, known as 10.61, with NAT; knows no way back
    inside: list[Echo]  # of alice and of what is behind her


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    red = Interface("wgs1", "red", 51820, ("10.9.0.1/24", "fd01::1/64"), 0, False, 360, ROUTES, ())
    with Lab() as lab, ExitStack() as stack:
        at = FirewalledHost(lab, red)
        lab.add_far_address(FAR, FAR6)
        nat, plain = lab.add_lan(at.host, 50), lab.add_lan(at.host, 51, routed=True)
        mapped, mapped_nat = lab.add_lan(at.host, 52, routed=True), lab.add_lan(at.host, 53)
        alice = lab.add_client()
        behind = lab.add_behind(alice, 77)
        networks = ("10.77.0.0/24", "2001:db8:77::/64")
        at.connect(alice, "wgs1", "a1", (ALICE, ALICE6), ("0.0.0.0/0", "::/0"), networks=networks)
        echoes = [
            stack.enter_context(Echo(machine, address, SERVICE))
            for machine in (alice, behind, nat, plain, mapped, mapped_nat)
            for address in ("0.0.0.0", "::")
        ]
        for address in (FAR, FAR6):
            stack.enter_context(Echo(lab.internet, address, SERVICE))
        yield Scene(at, alice, behind, nat, plain, mapped, mapped_nat, echoes[:4])


def both(machine: Machine, address: str, *, never: bool = False) -> set[bytes | None]:
    """What comes back over TCP and over UDP."""
    timeout = NEVER if never else HANGING
    return {ask(address, SERVICE, timeout=timeout) for ask in (machine.ask_tcp, machine.ask_udp)}


def opens_nothing(scene: Scene, machine: Machine, *addresses: str) -> None:
    """Nothing gets from ``machine`` to clients or behind them, not even one way."""
    for echo in scene.inside:
        echo.seen.clear()
    for address in addresses:
        assert both(machine, address, never=True) == {None}
        assert not machine.pings(address, NEVER)
    assert [echo.seen for echo in scene.inside] == [[]] * len(scene.inside)


def test_nat_route_is_reached_in_the_hosts_name_by_clients_and_what_is_behind_them(scene: Scene) -> None:
    for machine in (scene.alice, scene.behind):
        assert both(machine, scene.nat.address) == {b"10.50.0.1 hello"}
        assert both(machine, scene.nat.address6) == {b"2001:db8:50::1 hello"}
        assert machine.pings(scene.nat.address)
        assert machine.pings(scene.nat.address6)


def test_network_with_nat_opens_no_connection_to_clients(scene: Scene) -> None:
    scene.nat.ip("route", "replace", "default", "via", "10.50.0.1")
    scene.nat.ip("route", "replace", "default", "via", "2001:db8:50::1")
    opens_nothing(scene, scene.nat, ALICE, ALICE6, BEHIND, BEHIND6)


def test_route_without_nat_keeps_addresses_in_both_directions(scene: Scene) -> None:
    assert both(scene.alice, scene.plain.address) == {b"10.9.0.11 hello"}
    assert both(scene.alice, scene.plain.address6) == {b"fd01::11 hello"}
    assert both(scene.behind, scene.plain.address) == {b"10.77.0.2 hello"}
    assert both(scene.behind, scene.plain.address6) == {b"2001:db8:77::2 hello"}
    for address in (ALICE, BEHIND):
        assert both(scene.plain, address) == {b"10.51.0.2 hello"}
        assert scene.plain.pings(address)
    for address in (ALICE6, BEHIND6):
        assert both(scene.plain, address) == {b"2001:db8:51::2 hello"}
        assert scene.plain.pings(address)


def test_route_taken_away_is_closed_in_both_directions(scene: Scene) -> None:
    with scene.at.altered("wgs1", routes=()):
        for address in (scene.nat.address, scene.nat.address6, scene.plain.address, scene.plain.address6):
            assert both(scene.alice, address, never=True) == {None}
        opens_nothing(scene, scene.plain, ALICE, ALICE6, BEHIND, BEHIND6)
    assert both(scene.alice, scene.plain.address) == {b"10.9.0.11 hello"}


def test_netmap_translates_one_to_one_in_both_directions(scene: Scene) -> None:
    assert both(scene.alice, "10.60.0.2") == {b"10.9.0.11 hello"}
    assert both(scene.alice, "fd60::2") == {b"fd01::11 hello"}
    assert both(scene.behind, "10.60.0.2") == {b"10.77.0.2 hello"}
    assert scene.alice.pings("10.60.0.2")
    assert scene.alice.pings("fd60::2")
    # The real network opens connections too, and is known by the other addresses.
    assert both(scene.mapped, ALICE) == {b"10.60.0.2 hello"}
    assert both(scene.mapped, ALICE6) == {b"fd60::2 hello"}
    assert both(scene.mapped, BEHIND6) == {b"fd60::2 hello"}


def test_netmap_keeps_each_host_part(scene: Scene) -> None:
    scene.mapped.ip("addr", "add", "10.52.0.200/24", "dev", "eth0")
    scene.mapped.ip("addr", "add", "2001:db8:52::beef/64", "dev", "eth0", "nodad")
    assert scene.alice.pings("10.60.0.200")
    assert scene.alice.pings("fd60::beef")
    assert not scene.alice.pings("10.60.0.201", NEVER)


def test_netmap_with_nat_is_reached_in_the_hosts_name_and_opens_nothing(scene: Scene) -> None:
    assert both(scene.alice, "10.61.0.2") == {b"10.53.0.1 hello"}
    assert both(scene.alice, "fd61::2") == {b"2001:db8:53::1 hello"}
    scene.mapped_nat.ip("route", "replace", "default", "via", "10.53.0.1")
    scene.mapped_nat.ip("route", "replace", "default", "via", "2001:db8:53::1")
    opens_nothing(scene, scene.mapped_nat, ALICE, ALICE6)


def test_real_network_behind_a_netmap_is_not_reached_by_its_own_addresses(scene: Scene) -> None:
    real = (scene.mapped.address, scene.mapped.address6, scene.mapped_nat.address, scene.mapped_nat.address6)
    wide = (*ROUTES, Route("10.0.0.0/8", True), Route("0.0.0.0/0", True), Route("::/0", True))
    for settings in ({}, {"routes": wide}, {"restrict": False}):
        with scene.at.altered("wgs1", **settings):
            for address in real:
                assert both(scene.alice, address, never=True) == {None}
                assert not scene.alice.pings(address, NEVER)
    with scene.at.altered("wgs1", routes=(*ROUTES, Route("10.53.0.0/24", True), Route("2001:db8:53::/64", True))):
        assert both(scene.alice, scene.mapped_nat.address) == {b"10.53.0.1 hello"}
        assert both(scene.alice, scene.mapped_nat.address6) == {b"2001:db8:53::1 hello"}


def test_netmap_taken_away_is_closed_in_both_directions(scene: Scene) -> None:
    with scene.at.altered("wgs1", routes=ROUTES[:4]):
        for address in ("10.60.0.2", "fd60::2", "10.61.0.2", "fd61::2"):
            assert both(scene.alice, address, never=True) == {None}
        opens_nothing(scene, scene.mapped, ALICE, ALICE6)


def test_nat_out_of_one_interface_only(scene: Scene) -> None:
    for interface, seen, seen6 in (("lan51", b"10.51.0.1", b"2001:db8:51::1"), ("wan", b"10.9.0.11", b"fd01::11")):
        routes = (Route("10.51.0.0/24", True, interface), Route("2001:db8:51::/64", True, interface))
        with scene.at.altered("wgs1", routes=routes):
            assert both(scene.alice, scene.plain.address) == {seen + b" hello"}
            assert both(scene.alice, scene.plain.address6) == {seen6 + b" hello"}
            # With NAT, by whichever interface, the network only answers.
            opens_nothing(scene, scene.plain, ALICE, ALICE6)


def test_more_specific_route_decides(scene: Scene) -> None:
    inner = (Route("10.51.0.2/32", True), Route("2001:db8:51::2/128", True))
    with scene.at.altered("wgs1", routes=(*ROUTES, *inner)):
        assert both(scene.alice, scene.plain.address) == {b"10.51.0.1 hello"}
        assert both(scene.alice, scene.plain.address6) == {b"2001:db8:51::1 hello"}
        opens_nothing(scene, scene.plain, ALICE)


def test_default_routes_reach_the_internet_each_in_its_own_family(scene: Scene) -> None:
    host, host6 = ({f"{address} hello".encode()} for address in (scene.at.host.address, scene.at.host.address6))
    nobody_reaches(scene, FAR, FAR6)
    with scene.at.altered("wgs1", routes=(*ROUTES, Route("0.0.0.0/0", True))):
        assert both(scene.alice, FAR) == host
        nobody_reaches(scene, FAR6)
    with scene.at.altered("wgs1", routes=(*ROUTES, Route("::/0", True))):
        assert both(scene.alice, FAR6) == host6
        nobody_reaches(scene, FAR)
    nobody_reaches(scene, FAR, FAR6)


def nobody_reaches(scene: Scene, *addresses: str) -> None:
    for address in addresses:
        assert both(scene.alice, address, never=True) == {None}


def test_without_restriction_clients_reach_what_the_host_reaches_but_not_the_host(scene: Scene) -> None:
    with scene.at.altered("wgs1", restrict=False), Echo(scene.at.host, "0.0.0.0", SERVICE):
        assert both(scene.alice, FAR) == {b"198.51.100.1 hello"}
        assert both(scene.alice, FAR6) == {b"2001:db8:1::1 hello"}
        # What a route says still holds.
        assert both(scene.alice, scene.plain.address) == {b"10.9.0.11 hello"}
        assert both(scene.plain, ALICE) == {b"10.51.0.2 hello"}
        assert both(scene.alice, "10.51.0.1", never=True) == {None}
        opens_nothing(scene, scene.at.lab.internet, ALICE, ALICE6)


def test_what_is_for_a_clients_network_goes_nowhere_else_while_nobody_serves_it(scene: Scene) -> None:
    everything = (*ROUTES, Route("0.0.0.0/0", True), Route("::/0", True))
    behind = (f"{FAR}/32", f"{FAR6}/128")
    for settings in ({"routes": everything}, {"restrict": False}):
        with scene.at.altered("wgs1", **settings):
            assert None not in both(scene.alice, FAR) | both(scene.alice, FAR6)
        with scene.at.altered("wgs1", **settings, behind=behind):
            assert both(scene.alice, FAR, never=True) == both(scene.alice, FAR6, never=True) == {None}


def test_segments_are_sized_for_the_tunnel_in_both_directions(scene: Scene) -> None:
    # Both ends have links of 1500 and cannot know that between them is a tunnel of 1420.
    ends = ((scene.behind, scene.plain), (scene.plain, scene.behind))
    for client, server in ends:
        assert segment_sizes(client, server, server.address, SERVICE + 1) == (1380, 1380)
        assert segment_sizes(client, server, server.address6, SERVICE + 1) == (1360, 1360)
    for chain in ("outwards", "inwards"):
        rules = scene.at.host.run("nft", "-a", "list", "chain", "inet", "wgvpn", chain).stdout.splitlines()
        (handle,) = (line.rpartition(" ")[2] for line in rules if "maxseg" in line)
        scene.at.host.run("nft", "delete", "rule", "inet", "wgvpn", chain, "handle", handle)
    for client, server in ends:
        assert segment_sizes(client, server, server.address, SERVICE + 1) == (1460, 1460)
    assert scene.at.drifted()
    scene.at.apply()
    assert segment_sizes(*ends[0], scene.plain.address, SERVICE + 1) == (1380, 1380)
