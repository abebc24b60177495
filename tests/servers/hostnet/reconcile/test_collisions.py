"""A tunnel takes the place of no network that the host has itself; one that was there first is left, and it is said."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from servers.hostnet.state import Code, HostState
from servers.hostnet.state.host_networks import HostNetwork, Kind
from tests.servers.hostnet.reconcile.applied import BLUE, RED, Host

LAN = HostNetwork(Kind.ATTACHED, "10.9.0.0/16", "eth0")
ROUTER = HostNetwork(Kind.ROUTER, "10.9.0.200/32", "eth0")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def state(version: int, *interfaces: object) -> HostState:
    return HostState("h", version, "boot", 9790, interfaces)  # type: ignore[arg-type]


@pytest.mark.parametrize("own", [LAN, ROUTER], ids=str)
def test_a_tunnel_on_a_network_of_the_host_is_not_made(host: Host, own: HostNetwork) -> None:
    host.links.own = (own,)
    report = host.applier.full(state(5, RED, BLUE))
    assert report is not None
    assert list(host.wireguard.devices) == ["wgs2"]
    (said,) = report.conditions
    assert (said.code, said.severity) == (Code.NETWORK_COLLIDES, "error")
    assert f"wgs1: 10.9.0.0/24 overlaps {own}" in said.text
    assert report.networks == (own,)
    # And it is made once the host has that network no more.
    host.links.own = ()
    report = host.applier.full(state(6, RED, BLUE))
    assert report is not None
    assert report.conditions == []
    assert host.keys() == {"a-key", "b-key"}


def test_a_tunnel_that_was_there_first_stays_with_its_clients(host: Host) -> None:
    host.applier.full(state(5, RED))
    host.links.own = (LAN,)
    report = host.applier.full(state(6, RED))
    assert report is not None
    assert host.keys() == {"a-key", "b-key"}
    assert host.links.links["wgs1"].addresses == {"10.9.0.1/24"}
    assert [(each.code, "Its clients stay connected" in each.text) for each in report.conditions] == [
        (Code.NETWORK_COLLIDES, True)
    ]
    assert report.drift == []


def test_an_address_that_would_take_a_network_over_is_not_added_to_a_tunnel_that_runs(host: Host) -> None:
    host.applier.full(state(5, RED))
    host.links.own = (HostNetwork(Kind.ATTACHED, "10.20.0.0/24", "eth0"),)
    report = host.applier.full(state(6, dataclasses.replace(RED, addresses=("10.20.0.1/24",), peers=())))
    assert report is not None
    assert host.links.links["wgs1"].addresses == frozenset()
    assert host.keys() == set()
    assert [each.code for each in report.conditions] == [Code.NETWORK_COLLIDES]


def test_the_preview_says_it(host: Host) -> None:
    host.links.own = (LAN,)
    host.desired.take_full(state(4), 0)
    lines = host.applier.preview(state(5, RED))
    assert lines is not None
    assert any(
        line.startswith("error network_collides: wgs1: 10.9.0.0/24 overlaps 10.9.0.0/16 on eth0") for line in lines
    )
    assert not any("make the interface" in line for line in lines)
