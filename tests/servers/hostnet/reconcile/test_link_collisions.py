"""What is at the other end of a link takes the place of no network that the host has itself, whichever came first."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from servers.hostnet.state import Code, Link, OpenVpn, Route
from servers.hostnet.state.host_networks import HostNetwork, Kind
from tests.servers.hostnet.reconcile.applied import RED, Host, full

END = OpenVpn("wgo2", 1194, (), "end-b", "", "", "", "")
LINK = Link(
    "blue", "wgs2", ("10.19.0.0/24", "fd19::/64"), ("10.77.0.0/24", "10.78.0.0/24"),
    routed=(Route("10.51.0.0/24", False),), openvpn=END,
)  # fmt: skip
THERE = dataclasses.replace(LINK, openvpn=None, via="other", there=True)
LAN = HostNetwork(Kind.ATTACHED, "10.76.0.0/14", "eth1")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def reached(host: Host) -> set[str]:
    """What is sent into links, or through the mesh to their ends."""
    assert host.subsystem.state is not None
    every = [link for interface in host.subsystem.state.interfaces for link in interface.links]
    return {network for link in every for network in (*link.networks, *link.behind)}


@pytest.mark.parametrize("link", [LINK, THERE], ids=["end here", "end elsewhere"])
def test_what_the_host_has_itself_is_not_sent_into_a_link_and_it_is_said(host: Host, link: Link) -> None:
    interface = dataclasses.replace(RED, links=(link,))
    host.links.own = (LAN,)
    report = host.applier.full(full(interface))
    assert report is not None
    assert reached(host) == {"10.19.0.0/24", "fd19::/64"}
    assert [each.code for each in report.conditions] == [Code.NETWORK_COLLIDES] * 2
    first, second = (each.text for each in report.conditions)
    assert "wgs1: 10.77.0.0/24, at the other end of a link, overlaps 10.76.0.0/14 on eth1" in first
    assert "10.78.0.0/24" in second
    # The tunnel itself is not concerned, nor what passes the firewall once the network is free.
    assert host.keys() == {"a-key", "b-key"}
    assert host.links.links["wgs1"].addresses == {"10.9.0.1/24"}


def test_a_lan_that_comes_later_is_followed_without_a_message_and_so_is_its_end(host: Host) -> None:
    host.applier.full(full(dataclasses.replace(RED, links=(LINK,))))
    assert host.applier.repair(tunnels=True, host=True) is None
    host.links.own = (LAN,)
    assert host.applier.repair(tunnels=True) is None  # nothing was heard of its addresses
    report = host.applier.repair(tunnels=False, host=True)
    assert report is not None
    assert (report.drift, [each.code for each in report.conditions]) == ([], [Code.NETWORK_COLLIDES] * 2)
    assert reached(host) == {"10.19.0.0/24", "fd19::/64"}
    assert host.applier.repair(tunnels=True, host=True) is None
    host.links.own = ()
    report = host.applier.repair(tunnels=False, host=True)
    assert report is not None
    assert report.conditions == []
    assert reached(host) == {"10.19.0.0/24", "fd19::/64", "10.77.0.0/24", "10.78.0.0/24"}


def test_a_link_that_the_mesh_carries_and_routes_of_the_other_server_are_left_as_they_are(host: Host) -> None:
    """Of the one clients are reached one by one; the others are asked for from the tunnel alone."""
    host.links.own = (LAN, HostNetwork(Kind.ATTACHED, "10.51.0.0/24", "eth2"))
    report = host.applier.full(full(dataclasses.replace(RED, links=(dataclasses.replace(LINK, openvpn=None),))))
    assert report is not None
    assert report.conditions == []
    host.links.own = host.links.own[1:]
    report = host.applier.full(full(dataclasses.replace(RED, links=(LINK,)), version=11))
    assert report is not None
    assert report.conditions == []


def test_the_preview_says_it(host: Host) -> None:
    host.links.own = (LAN,)
    interface = dataclasses.replace(RED, links=(LINK,))
    host.desired.take_full(full(interface, version=4), 0)
    lines = host.applier.preview(full(interface))
    assert lines is not None
    assert any(line.startswith("error network_collides: wgs1: 10.77.0.0/24") for line in lines)
