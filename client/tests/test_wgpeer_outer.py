"""What leaves a machine beside the tunnel, seen on the wire: real packets in namespaces. And the tunnel over IPv6, its
MTU, its routes, and how soon it works. Needs root."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest
import wgpeer_fakes
from test_wgpeer_tunnel import (
    API_PORT,
    WG_PORT,
    Host,
    Net,
    in_namespace,
    namespaces,
    net,
    only,
    sh,
    until,
)
from wgpeer.constants import TABLE_BASE
from wgpeer.transport import HttpResponse
from wgpeer.tunnel.routing import interface_number
from wgpeer.tunnel.userspace import socket_is_alive
from wgpeer_fakes import CONFIGURATION, OpenedRequest, make_http_server, pong, profile_text

__all__ = ["namespaces", "net"]
pytestmark = pytest.mark.host

HANDSHAKE = b"\x01"  # the first byte of WireGuard's packet that begins one
OUT4, OUT6 = "203.0.113.7", "2001:db8:99::7"  # somewhere on the internet
EVERYTHING: dict[str, Any] = {
    "address6": "fd09::5/64",
    "routes": [{"network": "10.9.0.0/24"}, {"network": "0.0.0.0/0"}],
    "routes6": [{"network": "fd09::/64"}, {"network": "::/0"}],
}


class Server6(ThreadingHTTPServer):
    address_family = socket.AF_INET6


@pytest.fixture
def dual(net: Net, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Net]:
    """Both hosts have IPv6 as well, and their API answers there; the client's way out is by the first."""
    with ExitStack() as stack:
        for host in net.hosts:
            near, far = (f"v{net.client[3:]}{host.number}{side}" for side in "ab")
            for where, part, device in ((net.client, 2, near), (host.name, 1, far)):
                address = ["addr", "replace", f"2001:db8:{host.number}::{part}/64", "dev", device, "nodad"]
                sh("ip", "-n", where, *address)
            sh("ip", "-n", host.name, "addr", "replace", f"{OUT6}/128", "dev", "lo")
            make: Callable[[], ThreadingHTTPServer] = lambda h=host: make_http_server(  # type: ignore[misc]  # noqa: E731
                h.answer, (address6(h), API_PORT), certificate
            )
            with monkeypatch.context() as patch:
                patch.setattr(wgpeer_fakes, "ThreadingHTTPServer", Server6)
                server = in_namespace(host.name, make)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        sh("ip", "-n", net.client, "-6", "route", "replace", "default", "via", address6(net.hosts[0]))
        yield net
        net.wgpeer("down", check=False)


def address6(host: Host) -> str:
    return f"2001:db8:{host.number}::1"


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
            thread.join(10)
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


def connected(net: Net, reconnects: int) -> Callable[[], bool]:
    def answer() -> bool:
        seen = net.saved()
        return seen["state"] == "connected" and seen["reconnects"] >= reconnects

    return answer


def cut(host: Host, *, off: bool) -> None:
    """Let a host vanish from the network, and come back."""
    table = ["nft", "delete", "table", "inet", "away"]
    if off:
        rule = "add table inet away; add chain inet away in { type filter hook input priority 0; policy drop; }"
        table = ["nft", rule]
    sh("ip", "netns", "exec", host.name, *table)


def test_sending_everything_leaks_in_neither_family_at_any_moment(dual: Net) -> None:
    host = only(dual, 0)
    host.changes = EVERYTHING
    dual.wgpeer("up", "office")
    with Wire(dual) as wire:
        until(lambda: wire.sent > 400)
        # A new key, while the old tunnel stands.
        replies: list[Callable[[OpenedRequest], HttpResponse]] = [lambda opened: pong(opened, status=False)]
        host.on_ping = lambda opened: replies.pop()(opened) if replies else pong(opened)
        until(connected(dual, 1), 30)
        # The host is away for longer than the client's patience.
        cut(host, off=True)
        try:
            until(lambda: dual.saved()["state"] == "reconnecting", 30)
            before = wire.sent
            until(lambda: wire.sent > before + 2000, 30)
        finally:
            cut(host, off=False)
        until(connected(dual, 2), 40)
        # Somebody deletes the interface. The client makes it anew.
        dual.run("ip", "link", "del", dual.saved()["interface"])
        until(connected(dual, 3), 40)
        # The client is killed: what it made still stands.
        dual.kill(dual.saved()["pid"])
        before = wire.sent
        until(lambda: wire.sent > before + 400)
    assert wire.leaks == set()
    assert wire.wireguard > 100
    assert wire.sent > 3000
    dual.wgpeer("down", check=False)
    assert dual.leftovers() == ""
    with Wire(dual) as wire:  # and this is what it looks like without a tunnel
        until(lambda: len(wire.leaks) == 2)
    assert wire.leaks == {f"protocol 17 port 7777 to {OUT4}", f"protocol 17 port 7777 to {OUT6}"}


def test_a_name_taken_in_another_namespace_is_left_to_it_and_nothing_leaks_meanwhile(dual: Net) -> None:
    """The sockets of WireGuard's processes are shared by all namespaces, their interfaces are not."""
    host, elsewhere = only(dual, 0), dual.hosts[1].name
    host.changes = EVERYTHING
    dual.wgpeer("up", "office")
    seen = dual.saved()
    if seen["backend"] == "kernel":
        return  # no sockets there, so nothing to take
    name, pid = seen["interface"], seen["pid"]
    with Wire(dual) as wire, ExitStack() as stack:
        until(lambda: wire.sent > 400)
        os.kill(pid, signal.SIGSTOP)
        stack.callback(os.kill, pid, signal.SIGCONT)
        dual.run("ip", "link", "del", name)
        until(lambda: not socket_is_alive(name))
        sh("ip", "netns", "exec", elsewhere, "wireguard-go", name)
        stack.pop_all().close()
        stack.callback(sh, "ip", "-n", elsewhere, "link", "del", name)
        before = wire.sent
        until(connected(dual, 1), 40)
        until(lambda: wire.sent > before + 400)
        assert sh("ip", "netns", "exec", elsewhere, "wg", "show", name, "dump").split()[0] == "(none)"
    assert wire.leaks == set()
    assert dual.saved()["interface"] != name
    dual.run("ping", "-c1", "-W3", OUT4)
    dual.wgpeer("down")
    assert dual.leftovers() == ""


def test_one_family_alone_leaves_the_other_as_it_was(dual: Net) -> None:
    only(dual, 0).changes = {"routes": EVERYTHING["routes"]}
    dual.wgpeer("up", "office")
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
        dual.wgpeer("up", "office")
        with Wire(dual) as wire:
            until(lambda: wire.sent > 400)
        assert wire.leaks == set()
        assert dual.run("ip", "-6", "route", "get", OUT6, check=False) == ""
    finally:
        dual.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=0")
    dual.wgpeer("down")
    assert dual.leftovers() == ""


def test_an_ipv6_only_client_and_host(dual: Net) -> None:
    host = only(dual, 0)
    host.changes = EVERYTHING | {"hostname": f"[{address6(host)}]", "hostname6": address6(host)}
    (dual.tmp / "office.ovpn").write_text(profile_text(sync_hosts=[f"https://[{address6(host)}]:{API_PORT}"]))
    dual.wgpeer("add", str(dual.tmp / "office.ovpn"))
    devices = [f"v{dual.client[3:]}{each.number}a" for each in dual.hosts]
    for device in devices:
        dual.run("ip", "-4", "addr", "flush", "dev", device)
    try:
        dual.wgpeer("up", "office")
        seen = dual.saved()
        assert seen["endpoint"] == f"[{address6(host)}]:{WG_PORT}"
        assert seen["host"] == f"https://[{address6(host)}]:{API_PORT}"
        dual.run("ping", "-c1", "-W3", "10.9.0.1")
        dual.run("ping", "-6", "-c1", "-W3", "fd09::1")
        dual.run("ping", "-6", "-c1", "-W3", OUT6)
        dual.run("ping", "-c1", "-W3", OUT4)
    finally:
        dual.wgpeer("down", check=False)
        for number, device in enumerate(devices, 1):
            dual.run("ip", "addr", "replace", f"198.18.{number}.2/24", "dev", device)


def test_a_dual_host_is_reached_by_the_family_that_has_a_way(dual: Net) -> None:
    host = only(dual, 0)
    host.changes = {"hostname": "192.0.2.200", "hostname6": address6(host)}
    dual.run("ip", "-4", "route", "del", "default")
    dual.wgpeer("up", "office")
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

    dual.wgpeer("up", "office")
    assert mtu() == 1420
    try:
        # A smaller interface, a smaller route, and a way too small for IPv6; each is seen with the next connection.
        for count, (change, expected) in enumerate(
            (
                (["link", "set", near, "mtu", "1400"], 1320),
                (["route", "replace", f"{host.address}/32", "dev", near, "mtu", "1380"], 1300),
                (["route", "replace", f"{host.address}/32", "dev", near, "mtu", "1300"], 1280),
            ),
            1,
        ):
            dual.run("ip", *change)
            replies.append(lambda opened: pong(opened, status=False))
            until(connected(dual, count), 30)
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
        dual.wgpeer("up", "office")
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


def test_a_handshake_that_is_lost_is_begun_again_within_a_second(dual: Net) -> None:
    """WireGuard by itself would begin the next one only after 5 s."""
    host = only(dual, 0)
    threads, moments = list[threading.Thread](), list[float]()

    def let_in_after_the_second_handshake(tap: socket.socket, key: str) -> None:
        with tap:
            while len(moments) < 2:  # the lab's WireGuard drops them: it knows nobody of that key
                packet = tap.recv(65536)
                if packet[9] == socket.IPPROTO_UDP and packet[28:29] == HANDSHAKE:  # behind headers of IPv4 and UDP
                    moments.append(time.monotonic())
        host.wg("set", host.interface, "peer", key, "allowed-ips", "10.9.0.5/32")

    def late(opened: OpenedRequest) -> HttpResponse:
        tap = in_namespace(host.name, partial(Wire._tap, f"v{dual.client[3:]}1b"))
        tap.settimeout(10)
        arguments = (tap, opened.plaintext["wg_public_key"])
        threads.append(threading.Thread(target=let_in_after_the_second_handshake, args=arguments))
        threads[-1].start()
        mine = {"hostname": host.address, "port": WG_PORT, "public_key": host.public_key, "ping_interval": 5}
        return wgpeer_fakes.allow(opened, **(CONFIGURATION | mine))

    host.on_connect, host.on_ping = late, pong
    dual.wgpeer("up", "office")
    for thread in threads:
        thread.join(15)
    assert len(host.of("wg")) == 1
    assert moments[1] - moments[0] < 4


def test_traffic_goes_on_at_once_after_each_of_many_reconnects(dual: Net) -> None:
    host = only(dual, 0)
    replies: list[Callable[[OpenedRequest], HttpResponse]] = []
    host.on_ping = lambda opened: replies.pop()(opened) if replies else pong(opened)
    dual.wgpeer("up", "office")
    for count in range(1, 6):
        replies.append(lambda opened: pong(opened, status=False))
        until(connected(dual, count), 30)
        dual.run("ping", "-c1", "-W1", "10.9.0.1")
    keys = [opened.plaintext["wg_public_key"] for opened in host.of("wg")]
    assert len(set(keys)) == len(keys) == 6
