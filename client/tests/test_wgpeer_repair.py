"""What other programs take away from a tunnel is put back, and nothing leaks meanwhile: real packets in namespaces.
Needs root."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from wgpeer.constants import TABLE_BASE
from wgpeer.tunnel.link import interface_number
from wgpeer_fakes import pong
from wgpeer_namespaces import EVERYTHING, OUT4, OUT6, Net, cut, only, repaired, sh, until
from wgpeer_wire import Wire

pytestmark = pytest.mark.host
MAIN_RULES = (("-4", "32766", "main"), ("-4", "32767", "default"), ("-6", "32766", "main"))


@contextmanager
def main_rules(net: Net) -> Iterator[None]:
    """The kernel's own rules are there afterwards, which ``ip rule flush`` takes away too."""
    try:
        yield
    finally:
        for family, priority, table in MAIN_RULES:
            net.run("ip", family, "rule", "add", "pref", priority, "lookup", table, check=False)


def flush_rules(net: Net) -> None:
    for family in ("-4", "-6"):
        net.run("ip", family, "rule", "flush")


def tables(net: Net) -> list[str]:
    first = TABLE_BASE + 2 * interface_number(net.saved()["interface"])
    return [str(first), str(first + 1)]


def flush_tables(net: Net) -> None:
    for family in ("-4", "-6"):
        for table in tables(net):
            net.run("ip", family, "route", "flush", "table", table)


def wrong_rules(net: Net) -> None:
    """A rule of somebody else at a priority of ours."""
    number = interface_number(net.saved()["interface"])
    net.run("ip", "rule", "del", "pref", str(30600 + number))
    net.run("ip", "rule", "add", "pref", str(30600 + number), "from", "192.0.2.1", "lookup", "main")


FAULTS: dict[str, Callable[[Net], object]] = {
    "its rules": flush_rules,
    "its routes": flush_tables,
    "its guard": lambda net: net.run("nft", "flush", "ruleset"),
    "its interface": lambda net: net.run("ip", "link", "del", net.saved()["interface"]),
    "its addresses": lambda net: net.run("ip", "addr", "flush", "dev", net.saved()["interface"]),
    "its link": lambda net: net.run("ip", "link", "set", net.saved()["interface"], "down"),
}


@pytest.mark.parametrize("what", [*FAULTS, "a wrong rule"])
def test_what_another_program_takes_away_is_put_back_and_nothing_leaks_meanwhile(dual: Net, what: str) -> None:
    # No ping falls into the moment of the repair: where one does, it may end in a new connection instead.
    only(dual, 0).changes = EVERYTHING | {"ping_interval": 3600}
    dual.up()
    shown = dual.status()
    assert (shown["all_traffic"], shown["coverage"], shown["repairs"]) == (True, "yes, guarded", 0)
    with main_rules(dual), Wire(dual) as wire:
        until(lambda: wire.sent > 400)
        with repaired(dual):
            FAULTS.get(what, wrong_rules)(dual)
        before = wire.sent
        until(lambda: wire.sent > before + 400)
        dual.ping(OUT4)
        dual.ping(OUT6)
    assert wire.leaks == set()
    seen = dual.saved()
    assert ("its rules" if what == "a wrong rule" else what) in seen["repaired"]
    assert (seen["all_traffic"], seen["coverage"], seen["reconnects"]) == (True, "yes, guarded", 0)
    assert seen["public_key"] == shown["public_key"]
    assert "put back" in dual.wgpeer("logs", "office").stdout
    assert "repaired" in dual.wgpeer("status", "office").stdout
    dual.wgpeer("down")
    assert dual.leftovers() == ""
    assert "wgpeer" not in dual.run("nft", "list", "ruleset")


def test_the_guard_holds_when_rules_are_gone_and_nobody_is_there_to_repair_them(dual: Net) -> None:
    only(dual, 0).changes = EVERYTHING
    dual.up()
    dual.kill(dual.saved()["pid"])
    with main_rules(dual), Wire(dual) as wire:
        flush_rules(dual)
        for family, priority, table in MAIN_RULES:
            dual.run("ip", family, "rule", "add", "pref", priority, "lookup", table)
        before = wire.sent
        until(lambda: wire.sent > before + 400)
        assert wire.leaks == set()
        dual.ping(dual.hosts[0].address)  # the LAN stays reachable
        dual.run("nft", "flush", "ruleset")
        outside = {f"protocol 17 port 7777 to {address}" for address in (OUT4, OUT6)}
        until(lambda: outside <= wire.leaks)  # so much for the guard's part in it
    dual.wgpeer("down", check=False)
    assert dual.leftovers() == ""


def test_another_default_route_leaks_nothing_and_the_tunnel_goes_on_by_it(dual: Net) -> None:
    first = only(dual, 0)
    first.changes = EVERYTHING
    dual.up()
    second = dual.hosts[1]
    with Wire(dual) as wire:
        dual.run("ip", "route", "replace", "default", "via", second.address)
        dual.run("ip", "-6", "route", "replace", "default", "via", "2001:db8:2::1")
        before = wire.sent
        until(lambda: wire.sent > before + 400)
        dual.ping(OUT4)
    assert wire.leaks == set()
    assert dual.saved()["all_traffic"]


def test_a_rule_of_another_program_before_ours_is_said_and_held_back(dual: Net) -> None:
    only(dual, 0).changes = EVERYTHING
    dual.up()
    with Wire(dual) as wire:
        dual.run("ip", "rule", "add", "pref", "100", "lookup", "main")
        try:
            until(lambda: not dual.saved()["all_traffic"])
            before = wire.sent
            until(lambda: wire.sent > before + 400)
            near = f"v{dual.client[3:]}1a"
            expected = f"no: another program sends IPv4 to {near}; the guard holds it back; guarded"
            assert dual.saved()["coverage"] == expected
        finally:
            dual.run("ip", "rule", "del", "pref", "100")
        until(lambda: dual.saved()["all_traffic"])
    assert wire.leaks == set()


@pytest.mark.parametrize("everything", [False, True])
def test_a_lan_that_appears_inside_a_route_keeps_working_with_its_router(dual: Net, *, everything: bool) -> None:
    wide = {"routes": [{"network": "10.0.0.0/8"}]}
    only(dual, 0).changes = EVERYTHING | {"routes": [*EVERYTHING["routes"], *wide["routes"]]} if everything else wide
    dual.up()
    interface, mark = dual.saved()["interface"], dual.client[3:]
    assert f"dev {interface}" in dual.run("ip", "route", "get", "10.77.0.1")
    sh("ip", "netns", "add", f"{dual.client}l")
    try:
        near, far = f"l{mark}a", f"l{mark}b"
        sh(
            "ip",
            "link",
            "add",
            near,
            "netns",
            dual.client,
            "type",
            "veth",
            "peer",
            "name",
            far,
            "netns",
            f"{dual.client}l",
        )
        sh("ip", "-n", f"{dual.client}l", "addr", "add", "10.77.0.1/24", "dev", far)
        sh("ip", "-n", f"{dual.client}l", "link", "set", far, "up")
        dual.run("ip", "link", "add", "br0", "type", "bridge")
        dual.run("ip", "link", "set", near, "master", "br0", "up")
        dual.run("ip", "link", "set", "br0", "up")
        dual.run("ip", "addr", "add", "10.77.0.9/24", "dev", "br0")
        until(lambda: "dev br0" in dual.run("ip", "route", "get", "10.77.0.1"))
        dual.ping("10.77.0.1")
        assert f"dev {interface}" in dual.run("ip", "route", "get", "10.78.0.1")
        assert dual.saved()["repairs"] == 0
        assert "networks of this machine have changed" in dual.wgpeer("logs", "office").stdout
        dual.run("ip", "link", "del", "br0")
        until(lambda: f"dev {interface}" in dual.run("ip", "route", "get", "10.77.0.1"))
    finally:
        dual.run("ip", "link", "del", "br0", check=False)
        sh("ip", "netns", "del", f"{dual.client}l")


def test_a_lan_that_is_the_servers_own_is_said(dual: Net) -> None:
    only(dual, 0).changes = {"routes": [{"network": "10.9.0.0/24"}, {"network": "192.168.7.0/24"}]}
    dual.run("ip", "link", "add", "br0", "type", "bridge")
    try:
        dual.up()
        assert dual.saved()["conflicts"] == ""
        dual.run("ip", "addr", "add", "192.168.7.9/24", "dev", "br0")
        dual.run("ip", "link", "set", "br0", "up")
        until(lambda: dual.saved()["conflicts"])
        words = "192.168.7.0/24 is also a network of this machine"
        assert words in dual.saved()["conflicts"]
        assert words in dual.wgpeer("status", "office").stdout
        assert words in dual.wgpeer("logs", "office").stdout
    finally:
        dual.run("ip", "link", "del", "br0")
    until(lambda: not dual.saved()["conflicts"])


def test_a_repair_works_while_the_host_is_away(dual: Net) -> None:
    """A request that waits for a dead host must not hold up what keeps traffic from leaking."""
    host = only(dual, 0)
    host.changes = EVERYTHING
    dual.up()
    with main_rules(dual), Wire(dual) as wire:
        cut(host, off=True)
        try:
            until(lambda: dual.saved()["state"] == "reconnecting")
            before = dual.saved()["repairs"]
            flush_rules(dual)
            until(lambda: dual.saved()["repairs"] > before)
        finally:
            cut(host, off=False)
        until(lambda: dual.saved()["state"] == "connected")
    assert wire.leaks == set()
    host.on_ping = pong
