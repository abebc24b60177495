"""A tunnel takes the place of no network that the host has itself. A real worker, real links and packets."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.host.conftest import World
from tests.lab import Machine

pytestmark = pytest.mark.host

ONLY_LAN = "10.50.0.0/24"


def applied(world: World) -> dict[str, Any]:
    """The report of a new full state, whatever is wrong there."""
    world.version += 1
    world.control.send(world.state())
    return world.control.report("applied", version=world.version)


def codes(report: dict[str, Any]) -> list[str]:
    return [each["code"] for each in report["conditions"]]


@pytest.fixture(scope="module")
def lan(world: World) -> Machine:
    return world.lab.add_lan(world.host, 50)


def test_the_host_reports_what_it_has_itself(world: World, lan: Machine) -> None:
    told = applied(world)["networks"]
    assert ["attached", ONLY_LAN, "lan50"] in told
    assert ["address", "198.51.100.1/32", "wan"] in told
    assert ["router", "198.51.100.254/32", "wan"] in told
    assert ["router", "2001:db8:1::fe/128", "wan"] in told
    assert not [each for each in told if each[2].startswith("wgs") or each[2] == "lo"]


@pytest.mark.parametrize("address", ["10.50.0.1/24", "10.50.0.1/25", "198.51.0.1/16"])
def test_a_tunnel_on_a_lan_or_the_uplink_is_not_made_and_they_stay_reachable(
    world: World, lan: Machine, address: str
) -> None:
    three = dataclasses.replace(world.interfaces["two"], name="wgs3", server="three", port=51823, addresses=(address,))
    world.interfaces["three"] = three
    try:
        assert codes(applied(world)) == ["network_collides"]
        assert "wgs3" not in world.host.ip("link")
        assert world.host.pings(lan.address)
        assert world.host.pings(world.lab.internet.address)
        lines = world.ask_plan(world.state())["lines"]
        assert [line.partition(":")[0] for line in lines] == ["error network_collides"]
    finally:
        del world.interfaces["three"]
    assert codes(applied(world)) == []


def test_a_lan_that_comes_later_takes_nobody_off_the_tunnel_and_is_said(world: World) -> None:
    alice = world.lab.add_client()
    world.connect(alice, "two", "c1", "10.10.0.13", routes=["10.10.0.0/24"])
    assert alice.pings("10.10.0.1")
    world.host.ip("link", "add", "br9", "type", "bridge")
    world.host.ip("addr", "add", "10.10.0.254/24", "dev", "br9")
    world.host.ip("link", "set", "br9", "up")
    report = applied(world)
    assert codes(report) == ["network_collides"]
    assert "Its clients stay connected" in report["conditions"][0]["text"]
    assert "wgs2" in world.host.ip("link")
    world.host.ip("link", "del", "br9")
    assert codes(applied(world)) == []
    assert alice.pings("10.10.0.1")
