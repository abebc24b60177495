"""What leaves a machine beside the tunnel, seen on the wire: real packets in namespaces. Needs root."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from wgpeer.transport import HttpResponse
from wgpeer.tunnel.userspace import socket_is_alive
from wgpeer_fakes import OpenedRequest, pong
from wgpeer_namespaces import (
    EVERYTHING,
    OUT4,
    OUT6,
    Net,
    cut,
    only,
    reconnect,
    repaired,
    sh,
    until,
)
from wgpeer_wire import Wire

pytestmark = pytest.mark.host


def test_sending_everything_leaks_in_neither_family_at_any_moment(dual: Net) -> None:
    host = only(dual, 0)
    host.changes = EVERYTHING
    dual.up()
    with Wire(dual) as wire:
        until(lambda: wire.sent > 400)
        # A new key, while the old tunnel stands.
        replies: list[Callable[[OpenedRequest], HttpResponse]] = [lambda opened: pong(opened, status=False)]
        with reconnect(dual):
            host.on_ping = lambda opened: replies.pop()(opened) if replies else pong(opened)
        # The host is away for longer than the client's patience.
        with reconnect(dual):
            cut(host, off=True)
            try:
                until(lambda: dual.saved()["state"] == "reconnecting")
                before = wire.sent
                until(lambda: wire.sent > before + 2000)
            finally:
                cut(host, off=False)
        # Somebody deletes the interface. The client makes it anew, for the same connection.
        with repaired(dual):
            dual.run("ip", "link", "del", dual.saved()["interface"])
        # The client is killed: what it made still stands.
        dual.kill(dual.saved()["pid"])
        before = wire.sent
        until(lambda: wire.sent > before + 400)
    assert wire.leaks == set()
    assert wire.wireguard > 0, "what goes through the tunnel was seen"
    dual.wgpeer("down", check=False)
    assert dual.leftovers() == ""
    with Wire(dual) as wire:  # and this is what it looks like without a tunnel
        until(lambda: len(wire.leaks) == 2)
    assert wire.leaks == {f"protocol 17 port 7777 to {OUT4}", f"protocol 17 port 7777 to {OUT6}"}


def test_a_name_taken_in_another_namespace_is_left_to_it_and_nothing_leaks_meanwhile(dual: Net) -> None:
    """The sockets of WireGuard's processes are shared by all namespaces, their interfaces are not."""
    host, elsewhere = only(dual, 0), dual.hosts[1].name
    host.changes = EVERYTHING
    dual.up()
    seen = dual.saved()
    if seen["backend"] == "kernel":
        return  # no sockets there, so nothing to take
    name, pid = seen["interface"], seen["pid"]
    with Wire(dual) as wire, ExitStack() as stack:
        until(lambda: wire.sent > 400)
        with repaired(dual):
            os.kill(pid, signal.SIGSTOP)
            stack.callback(os.kill, pid, signal.SIGCONT)
            dual.run("ip", "link", "del", name)
            until(lambda: not socket_is_alive(name))
            sh("ip", "netns", "exec", elsewhere, "wireguard-go", name)
            stack.pop_all().close()
            stack.callback(sh, "ip", "-n", elsewhere, "link", "del", name)
        before = wire.sent
        until(lambda: wire.sent > before + 400)
        assert sh("ip", "netns", "exec", elsewhere, "wg", "show", name, "dump").split()[0] == "(none)"
    assert wire.leaks == set()
    assert dual.saved()["interface"] != name
    dual.ping(OUT4)
    dual.wgpeer("down")
    assert dual.leftovers() == ""


def test_one_family_alone_leaves_the_other_as_it_was(dual: Net) -> None:
    only(dual, 0).changes = {"routes": EVERYTHING["routes"]}
    dual.up()
    with Wire(dual) as wire:
        until(lambda: wire.leaks)
        until(lambda: wire.sent > 400)
    assert wire.leaks == {f"protocol 17 port 7777 to {OUT6}"}
    assert "IPv4: everything but this machine's LANs" in dual.wgpeer("status", "office").stdout


def test_what_the_interface_cannot_carry_is_not_sent_around_it(dual: Net) -> None:
    """IPv6 is switched off for new interfaces, but not for the one that leads out."""
    only(dual, 0).changes = EVERYTHING
    dual.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
    try:
        dual.up()
        with Wire(dual) as wire:
            until(lambda: wire.sent > 400)
        assert wire.leaks == set()
        assert dual.run("ip", "-6", "route", "get", OUT6, check=False) == ""
    finally:
        dual.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=0")
    dual.wgpeer("down")
    assert dual.leftovers() == ""
