"""Several tunnels on one machine, whose routes overlap: real packets in namespaces. Needs root."""

from __future__ import annotations

import json
from typing import Any

import pytest
from wgpeer_fakes import profile_text
from wgpeer_namespaces import API_PORT, EVERYTHING, OUT4, Net, until
from wgpeer_wire import Wire

pytestmark = pytest.mark.host
SECOND: dict[str, Any] = {"address": "10.8.0.5/24", "gateway": "10.9.0.1"}


def add_second(net: Net) -> None:
    """A second profile, ``lab``, of the second host alone; ``office`` is of the first."""
    first, second = net.hosts
    for name, host, more in (("office", first, {}), ("lab", second, {"server_id": "b" * 24})):
        text = profile_text(sync_hosts=[f"https://{host.address}:{API_PORT}"], **more)
        (net.tmp / f"{name}.ovpn").write_text(text)
        net.wgpeer("add", str(net.tmp / f"{name}.ovpn"))


def of(net: Net, name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((net.tmp / f"peer/run/{name}.status.json").read_text())
    return value


def up(net: Net, name: str) -> dict[str, Any]:
    net.wgpeer("up", name)
    return of(net, name)


def way(net: Net, address: str) -> str:
    words = net.run("ip", "route", "get", address).split()
    return words[words.index("dev") + 1]


def test_the_more_specific_route_wins_whoever_came_first(net: Net) -> None:
    add_second(net)
    net.hosts[0].changes = {"routes": [{"network": "10.0.0.0/8"}, {"network": "172.16.5.0/24"}]}
    net.hosts[1].changes = {"routes": [{"network": "10.5.0.0/16"}, {"network": "172.16.0.0/12"}]}
    office, lab = up(net, "office")["interface"], up(net, "lab")["interface"]
    assert office != lab
    until(lambda: way(net, "10.5.0.1") == lab)
    expected = {"10.5.0.1": lab, "10.6.0.1": office, "172.16.5.1": office, "172.16.6.1": lab}
    assert {address: way(net, address) for address in expected} == expected
    until(lambda: f"10.5.0.0/16 goes through {lab} (lab)" in of(net, "office")["conflicts"])
    assert f"172.16.5.0/24 goes through {office} (office)" in of(net, "lab")["conflicts"].replace("10.9.0.1/32, ", "")
    net.wgpeer("down", "lab")
    until(lambda: way(net, "10.5.0.1") == office)
    until(lambda: "10.5.0.0/16" not in of(net, "office")["conflicts"])


def test_of_two_that_take_everything_the_second_says_that_it_loses_and_takes_over_when_the_first_goes(
    dual: Net,
) -> None:
    add_second(dual)
    for host in dual.hosts:
        host.changes = EVERYTHING
    office = up(dual, "office")["interface"]
    lab = up(dual, "lab")
    assert (of(dual, "office")["all_traffic"], lab["all_traffic"]) == (True, False)
    assert lab["coverage"] == f"no: IPv4 goes through {office} (office); IPv6 goes through {office} (office); guarded"
    assert "0.0.0.0/0" in lab["conflicts"]
    assert way(dual, OUT4) == office
    with Wire(dual) as wire:
        until(lambda: wire.sent > 400)
        dual.wgpeer("down", "office")
        until(lambda: of(dual, "lab")["all_traffic"])
        before = wire.sent
        until(lambda: wire.sent > before + 400)
    assert wire.leaks == set()
    assert way(dual, OUT4) == lab["interface"]
    dual.wgpeer("down", "lab")
    assert dual.leftovers() == ""


def test_a_tunnel_of_some_networks_beside_one_of_everything_keeps_them(net: Net) -> None:
    add_second(net)
    net.hosts[0].changes = EVERYTHING
    net.hosts[1].changes = {"routes": [{"network": "10.5.0.0/16"}]}
    office, lab = up(net, "office"), up(net, "lab")["interface"]
    assert (way(net, "10.5.0.1"), way(net, OUT4)) == (lab, office["interface"])
    assert of(net, "office")["all_traffic"]
