"""What leaves a machine beside the tunnel, seen on the wire: real packets in namespaces. Needs root."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

import pytest
from wgpeer.transport import HttpResponse
from wgpeer.tunnel.userspace import socket_is_alive
from wgpeer_fakes import HANGING, OpenedRequest, pong
from wgpeer_namespaces import (
    API_PORT,
    EVERYTHING,
    OUT4,
    OUT6,
    WG_PORT,
    Net,
    address6,
    cut,
    in_namespace,
    only,
    reconnect,
    sh,
    until,
)

pytestmark = pytest.mark.host


class Wire:
    """Watches what leaves the client by its outer interfaces, while programs on it talk to the internet all the time.

    ``leaks`` is what left and was neither WireGuard nor the API nor the housekeeping of a link.
    """

    def __init__(self, net: Net) -> None:
        self.leaks: set[str] = set()
        self.wireguard = self.sent = 0
        self._hosts = {text for host in net.hosts for text in (host.address, address6(host))}
        self._ending = threading.Event()
        devices = [f"v{net.client[3:]}{host.number}a" for host in net.hosts]
        self._taps = [in_namespace(net.client, lambda device=device: self._tap(device)) for device in devices]
        self._talkers = in_namespace(net.client, self._make_talkers)
        works = [*(lambda tap=tap: self._watch(tap) for tap in self._taps), self._talk]
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(HANGING)
        for each in [*self._taps, *(talker for talker, _ in self._talkers)]:
            each.close()

    @staticmethod
    def _tap(device: str) -> socket.socket:
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))  # ETH_P_ALL
        tap.bind((device, 3))
        tap.settimeout(0.1)
        return tap

    @staticmethod
    def _make_talkers() -> list[tuple[socket.socket, str]]:
        """Sockets that know no address of their own, and some that are bound to the outer one."""
        talkers = []
        for family, target, own in ((socket.AF_INET, OUT4, "198.18.1.2"), (socket.AF_INET6, OUT6, "2001:db8:1::2")):
            for bound in ("", own):
                talker = socket.socket(family, socket.SOCK_DGRAM)
                talker.bind((bound, 0))
                talkers.append((talker, target))
        return talkers

    def _talk(self) -> None:
        while not self._ending.wait(0.003):
            for talker, target in self._talkers:
                with contextlib.suppress(OSError):  # unreachable: just what may be, while there is no tunnel
                    talker.sendto(b"secret", (target, 7777))
                self.sent += 1

    def _watch(self, tap: socket.socket) -> None:
        while not self._ending.is_set():
            try:
                packet, (_, protocol, kind, *_rest) = tap.recvfrom(65536)
            except TimeoutError:
                continue
            if kind == socket.PACKET_OUTGOING and protocol in (0x0800, 0x86DD):
                self._judge(packet, six=protocol == 0x86DD)

    def _judge(self, packet: bytes, *, six: bool) -> None:
        if six:
            protocol, rest, target = packet[6], packet[40:], socket.inet_ntop(socket.AF_INET6, packet[24:40])
        else:
            protocol, rest, target = packet[9], packet[4 * (packet[0] & 15) :], socket.inet_ntoa(packet[16:20])
        port = int.from_bytes(rest[2:4])
        if target in self._hosts and protocol == socket.IPPROTO_UDP and port == WG_PORT:
            self.wireguard += 1
        elif target in self._hosts and protocol == socket.IPPROTO_TCP and port == API_PORT:
            pass
        elif target in self._hosts and protocol == socket.IPPROTO_ICMP and rest[0] == 3:
            pass  # the kernel tells a host that the WireGuard of a former test is gone
        elif six and protocol in (0, socket.IPPROTO_ICMPV6):
            # Neighbours and multicast groups of the link itself; an echo to elsewhere would be a leak.
            if protocol == socket.IPPROTO_ICMPV6 and rest[0] not in (133, 135, 136, 143):
                self.leaks.add(f"ICMPv6 {rest[0]} to {target}")
        else:
            self.leaks.add(f"protocol {protocol} port {port} to {target}")


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
        # Somebody deletes the interface. The client makes it anew.
        with reconnect(dual):
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
        with reconnect(dual):
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
