"""Routes and ways out as the kernel has them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from servers.hostnet.netlink.links import LinkError, Links
from servers.hostnet.observed import HostRoute, Observed
from servers.hostnet.state.host_networks import HostNetwork, Kind
from tests.lab import Lab, Machine

pytestmark = pytest.mark.host

SITE, SITE6 = "192.168.7.0/24", "fd77::/48"


@pytest.fixture
def host() -> Iterator[Machine]:
    """A host with a LAN behind it (10.50.0.0/24) and two links of ours, up and addressed; bridges will do."""
    with Lab() as lab:
        host = lab.add_host()
        lab.add_lan(host, 50)
        for name, address, address6 in (
            ("wgs1", "10.9.0.1/24", "fd01::1/64"),
            ("wgs2", "10.10.0.1/24", "fd02::1/64"),
        ):
            host.ip("link", "add", name, "type", "bridge")
            host.ip("link", "set", name, "up", "mtu", "1420")
            host.ip("addr", "add", address, "dev", name)
            host.ip("addr", "add", address6, "dev", name, "nodad")
        yield host


def observe(host: Machine) -> Observed:
    return host.call(lambda: Links().observe({}))


def add(host: Machine, name: str, network: str) -> None:
    host.call(lambda: Links().add_route(name, network))


def remove(host: Machine, name: str, network: str) -> None:
    host.call(lambda: Links().remove_route(name, network))


def routes(host: Machine, name: str = "wgs1") -> set[str]:
    return {*observe(host).links[name].routes}


def test_routes_are_added_read_and_removed_and_each_may_be_repeated(host: Machine) -> None:
    for network in (SITE, SITE6, "192.168.9.9/32", "fd77::9/128"):
        for _ in range(2):
            add(host, "wgs1", network)
    assert routes(host) == {SITE, SITE6, "192.168.9.9/32", "fd77::9/128"}
    assert f"{SITE} dev wgs1 proto 158 scope link" in host.ip("route")
    assert f"{SITE6} dev wgs1 proto 158" in host.ip("-6", "route")
    for network in (SITE, SITE6):
        for _ in range(2):
            remove(host, "wgs1", network)
    assert routes(host) == {"192.168.9.9/32", "fd77::9/128"}
    with pytest.raises(LinkError, match="wgs9: no such link"):
        add(host, "wgs9", SITE)


@pytest.mark.parametrize("network", ["10.50.0.0/24", SITE, SITE6, "10.123.0.0/16"])
def test_no_route_is_made_in_the_place_of_another(host: Machine, network: str) -> None:
    host.ip("route", "add", "blackhole", "10.123.0.0/16")
    for site in (SITE, SITE6):
        add(host, "wgs1", site)
    before = host.ip("route"), host.ip("-6", "route")
    with pytest.raises(LinkError, match=f"wgs2: the host has another route to {network}"):
        add(host, "wgs2", network)
    assert (host.ip("route"), host.ip("-6", "route")) == before


def test_only_what_is_ours_is_removed(host: Machine) -> None:
    host.ip("route", "add", SITE, "dev", "wgs1")
    host.ip("-6", "route", "add", SITE6, "dev", "wgs1")
    for network in (SITE, SITE6, "10.50.0.0/24"):
        remove(host, "wgs1", network)
        remove(host, "wgs2", network)
    assert f"{SITE} dev wgs1" in host.ip("route")
    assert f"{SITE6} dev wgs1" in host.ip("-6", "route")
    assert "10.50.0.0/24 dev lan50" in host.ip("route")
    assert routes(host) == set()
    add(host, "wgs1", SITE)  # it leads there already
    assert {HostRoute(SITE, "wgs1", True), HostRoute(SITE6, "wgs1", True)} <= {*observe(host).host_routes}


def test_routes_of_the_host_itself_are_told_with_what_they_lead_to(host: Machine) -> None:
    host.ip("route", "add", "10.60.0.0/16", "via", "10.50.0.2")
    host.ip("-6", "route", "add", "2001:db8:60::/64", "via", "2001:db8:50::2")
    host.ip("route", "add", "blackhole", "10.123.0.0/16")
    told = {*observe(host).host_routes}
    assert {
        HostRoute("0.0.0.0/0", "wan", False),
        HostRoute("10.50.0.0/24", "lan50", True),
        HostRoute("2001:db8:50::/64", "lan50", True),
        HostRoute("10.60.0.0/16", "lan50", False),
        HostRoute("2001:db8:60::/64", "lan50", False),
        HostRoute("10.123.0.0/16", "", False),
        HostRoute("10.9.0.0/24", "wgs1", True),
    } <= told


def test_networks_of_the_host_itself_are_told_and_tunnels_of_ours_are_not(host: Machine) -> None:
    host.ip("route", "replace", "default", "nexthop", "via", "198.51.100.254", "nexthop", "via", "10.50.0.2")
    host.ip("route", "add", "10.61.0.0/16", "dev", "lan50")
    host.ip("route", "add", "10.60.0.0/16", "via", "10.50.0.2")
    host.ip("addr", "add", "192.0.2.77", "peer", "192.0.2.78", "dev", "wan")
    assert set(observe(host).own) == {
        HostNetwork(Kind.ADDRESS, "198.51.100.1/32", "wan"),
        HostNetwork(Kind.ADDRESS, "192.0.2.77/32", "wan"),
        HostNetwork(Kind.ADDRESS, "2001:db8:1::1/128", "wan"),
        HostNetwork(Kind.ADDRESS, "10.50.0.1/32", "lan50"),
        HostNetwork(Kind.ADDRESS, "2001:db8:50::1/128", "lan50"),
        HostNetwork(Kind.ATTACHED, "198.51.100.0/24", "wan"),
        HostNetwork(Kind.ATTACHED, "192.0.2.78/32", "wan"),
        HostNetwork(Kind.ATTACHED, "2001:db8:1::/64", "wan"),
        HostNetwork(Kind.ATTACHED, "10.50.0.0/24", "lan50"),
        HostNetwork(Kind.ATTACHED, "10.61.0.0/16", "lan50"),
        HostNetwork(Kind.ATTACHED, "2001:db8:50::/64", "lan50"),
        HostNetwork(Kind.ROUTER, "198.51.100.254/32", "wan"),
        HostNetwork(Kind.ROUTER, "10.50.0.2/32", "lan50"),
        HostNetwork(Kind.ROUTER, "2001:db8:1::fe/128", "wan"),
    }


WAYS_OUT: dict[str, tuple[list[str], int]] = {
    "IPv4 only": (["-6 route flush default"], 1400),
    "IPv6 only, by another link": (["route del default"], 1300),
    "the smaller of both": ([], 1300),
    "none": (["route del default", "-6 route flush default"], 1500),
    "one that leads nowhere": (
        ["route replace unreachable default", "-6 route flush default", "-6 route add unreachable default dev lo"],
        1500,
    ),
    "several at once": (
        ["-6 route flush default", "route replace default nexthop via 198.51.100.254 nexthop via 10.50.0.2"],
        1300,
    ),
    "into one of our own tunnels": (["route replace default dev wgs1", "-6 route flush default"], 1500),
}


@pytest.mark.parametrize(("commands", "mtu"), WAYS_OUT.values(), ids=WAYS_OUT)
def test_mtu_of_the_way_out(host: Machine, commands: list[str], mtu: int) -> None:
    host.ip("link", "set", "wan", "mtu", "1400")
    host.ip("link", "set", "lan50", "mtu", "1300")
    host.ip("-6", "route", "replace", "default", "via", "2001:db8:50::2", "dev", "lan50")
    for command in commands:
        host.ip(*command.split())
    assert observe(host).outer_mtu == mtu
