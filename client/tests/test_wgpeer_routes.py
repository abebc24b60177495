"""The tunnel over IPv6, its MTU, its routes, and traffic after a reconnect: real packets in namespaces. Needs root."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from wgpeer.constants import TABLE_BASE
from wgpeer.transport import HttpResponse
from wgpeer.tunnel.link import interface_number
from wgpeer_fakes import OpenedRequest, pong, profile_text
from wgpeer_namespaces import (
    API_PORT,
    EVERYTHING,
    OUT4,
    OUT6,
    WG_PORT,
    Net,
    address6,
    only,
    reconnect,
)

pytestmark = pytest.mark.host


def test_an_ipv6_only_client_and_host(dual: Net) -> None:
    host = only(dual, 0)
    host.changes = EVERYTHING | {"hostname": f"[{address6(host)}]", "hostname6": address6(host)}
    (dual.tmp / "office.ovpn").write_text(profile_text(sync_hosts=[f"https://[{address6(host)}]:{API_PORT}"]))
    dual.wgpeer("add", str(dual.tmp / "office.ovpn"))
    devices = [f"v{dual.client[3:]}{each.number}a" for each in dual.hosts]
    for device in devices:
        dual.run("ip", "-4", "addr", "flush", "dev", device)
    try:
        dual.up()
        seen = dual.saved()
        assert seen["endpoint"] == f"[{address6(host)}]:{WG_PORT}"
        assert seen["host"] == f"https://[{address6(host)}]:{API_PORT}"
        dual.ping("10.9.0.1")
        dual.ping("fd09::1")
        dual.ping(OUT6)
        dual.ping(OUT4)
    finally:
        dual.wgpeer("down", check=False)
        for number, device in enumerate(devices, 1):
            dual.run("ip", "addr", "replace", f"198.18.{number}.2/24", "dev", device)


def test_a_dual_host_is_reached_by_the_family_that_has_a_way(dual: Net) -> None:
    host = only(dual, 0)
    host.changes = {"hostname": "192.0.2.200", "hostname6": address6(host)}
    dual.run("ip", "-4", "route", "del", "default")
    dual.up()
    assert dual.saved()["endpoint"] == f"[{address6(host)}]:{WG_PORT}"


def test_without_an_mtu_of_the_server_the_way_to_the_host_decides(dual: Net) -> None:
    host = only(dual, 0)
    host.changes = {"mtu": 0}
    near = f"v{dual.client[3:]}1a"
    replies: list[Callable[[OpenedRequest], HttpResponse]] = []
    host.on_ping = lambda opened: replies.pop()(opened) if replies else pong(opened)

    def mtu() -> int:
        shown = dual.run("ip", "-o", "link", "show", dual.saved()["interface"])
        assert f" mtu {dual.saved()['mtu']} " in shown
        return int(dual.saved()["mtu"])

    dual.up()
    assert mtu() == 1420
    try:
        # A smaller interface, a smaller route, and a way too small for IPv6; each is seen with the next connection.
        for change, expected in (
            (["link", "set", near, "mtu", "1400"], 1320),
            (["route", "replace", f"{host.address}/32", "dev", near, "mtu", "1380"], 1300),
            (["route", "replace", f"{host.address}/32", "dev", near, "mtu", "1300"], 1280),
        ):
            dual.run("ip", *change)
            with reconnect(dual):
                replies.append(lambda opened: pong(opened, status=False))
            assert mtu() == expected
    finally:
        dual.run("ip", "link", "set", near, "mtu", "1500")
        dual.run("ip", "route", "del", f"{host.address}/32", check=False)


def test_networks_kept_outside_and_metrics_in_both_families(dual: Net) -> None:
    only(dual, 0).changes = {
        "address6": "fd09::5/64",
        "routes": [
            *EVERYTHING["routes"],
            {"network": "203.0.113.77/32", "net_gateway": True},
            {"network": "10.60.0.0/16", "metric": 300},
            {"network": "10.61.0.0/16", "metric": 300},
        ],
        "routes6": [
            *EVERYTHING["routes6"],
            {"network": "2001:db8:77::/64", "net_gateway": True},
            {"network": "2001:db8:60::/64", "metric": 300},
        ],
    }
    dual.run("ip", "route", "add", "10.61.0.0/16", "via", dual.hosts[1].address, "metric", "100")
    try:
        dual.up()
        interface = dual.saved()["interface"]
        inside = (OUT4, OUT6, "10.60.1.1", "2001:db8:60::1")
        assert all(f"dev {interface}" in dual.run("ip", "route", "get", address) for address in inside)
        outside = ("203.0.113.77", "2001:db8:77::1", "10.61.1.1")
        assert not any(interface in dual.run("ip", "route", "get", address) for address in outside)
        table = str(TABLE_BASE + 2 * interface_number(interface))
        tables = "".join(dual.run("ip", family, "route", "show", "table", table) for family in ("-4", "-6"))
        for network in ("10.60.0.0/16", "2001:db8:60::/64"):
            line = next(line for line in tables.splitlines() if line.startswith(network))
            assert "metric 300" in line
        shown = dual.wgpeer("status", "office").stdout
        assert "IPv4 and IPv6: everything but this machine's LANs; not 203.0.113.77/32, 2001:db8:77::/64" in shown
    finally:
        dual.run("ip", "route", "del", "10.61.0.0/16")


def test_traffic_goes_on_after_each_of_several_reconnects(dual: Net) -> None:
    host = only(dual, 0)
    replies: list[Callable[[OpenedRequest], HttpResponse]] = []
    host.on_ping = lambda opened: replies.pop()(opened) if replies else pong(opened)
    dual.up()
    for _ in range(3):
        with reconnect(dual):
            replies.append(lambda opened: pong(opened, status=False))
        dual.ping("10.9.0.1")
    keys = [opened.plaintext["wg_public_key"] for opened in host.of("wg")]
    assert len(set(keys)) >= 4
