"""Notifications of the kernel lead to a repair: also those that were lost."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute, netns
from wgpeer.tunnel.guard import Guard
from wgpeer.tunnel.watch import NETLINK_NETFILTER, NFTABLES_GROUP, Watch, _drain, _subscribe
from wgpeer_fakes import HANGING
from wgpeer_namespaces import sh, until

pytestmark = pytest.mark.host


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"wgw{secrets.token_hex(2)}"
    sh("ip", "netns", "add", name)
    yield name
    sh("ip", "netns", "del", name)


class Watched:
    """A watch in a namespace, and the repairs that it asks for."""

    def __init__(self, namespace: str) -> None:
        self.count, self.good, self.lost = 0, True, 0
        self.go_on, self._ending, self._ready = threading.Event(), threading.Event(), threading.Event()
        self.go_on.set()
        self._thread = threading.Thread(target=self._run, args=(namespace,))

    def __enter__(self) -> Watched:
        self._thread.start()
        assert self._ready.wait(HANGING)
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._ending.set()
        self._thread.join(HANGING)

    def repair(self) -> bool:
        self.count += 1
        self.go_on.wait(HANGING)
        return self.good

    def _run(self, namespace: str) -> None:
        netns.setns(namespace)
        with Watch(self.repair):
            self._ready.set()
            self._ending.wait(HANGING)


@pytest.mark.parametrize(
    "change",
    [
        ["ip", "link", "add", "br0", "type", "bridge"],
        ["ip", "addr", "add", "192.0.2.1/24", "dev", "lo"],
        ["ip", "-6", "addr", "add", "2001:db8::1/64", "dev", "lo"],
        ["ip", "route", "add", "unreachable", "192.0.2.0/24"],
        ["ip", "-6", "route", "add", "unreachable", "2001:db8::/64"],
        ["ip", "rule", "add", "pref", "5", "lookup", "main"],
        ["ip", "-6", "rule", "add", "pref", "5", "lookup", "main"],
        ["nft", "add", "table", "inet", "other"],
    ],
)
def test_every_kind_of_change_is_noticed(namespace: str, change: list[str]) -> None:
    with Watched(namespace) as watched:
        sh("ip", "netns", "exec", namespace, *change)
        until(lambda: watched.count)


def test_a_tunnel_without_a_guard_makes_no_changes_that_it_would_notice_itself(namespace: str) -> None:
    heard: list[list[bool]] = []

    def remove_twice() -> None:
        netns.setns(namespace)
        guard = Guard()
        with _subscribe(NETLINK_NETFILTER, NFTABLES_GROUP) as changes:
            guard.ensure(0, {4: [(0, 1)]})
            heard.append([is_announced(changes)])
            for _ in range(2):
                guard.remove(0)
                heard[0].append(is_announced(changes))

    thread = threading.Thread(target=remove_twice)
    thread.start()
    thread.join(HANGING)
    assert heard == [[True, True, False]]


def is_announced(changes: socket.socket) -> bool:
    """Whether there was a change since this was asked before. The kernel announces it before it is done."""
    try:
        changes.recv(1)
    except BlockingIOError:
        return False
    _drain(changes)
    return True


def test_a_repair_that_failed_is_tried_again_without_another_change(namespace: str) -> None:
    with Watched(namespace) as watched:
        watched.good = False
        sh("ip", "-n", namespace, "link", "add", "br0", "type", "bridge")
        until(lambda: watched.count > 2)
        watched.good = True


def test_notifications_that_are_lost_lead_to_a_repair_too(namespace: str) -> None:
    with Watched(namespace) as watched:
        watched.go_on.clear()
        sh("ip", "-n", namespace, "link", "add", "br0", "type", "bridge")
        until(lambda: watched.count == 1)  # busy, and listening to nothing

        def flood() -> None:
            netns.setns(namespace)
            with IPRoute() as route:
                for number in range(3000):
                    route.rule("add", priority=100 + number, table=254)
            lines = Path("/proc/thread-self/net/netlink").read_text().splitlines()
            watched.lost = sum(int(line.split()[8]) for line in lines[1:])

        thread = threading.Thread(target=flood)
        thread.start()
        thread.join(HANGING)
        assert watched.lost > 0
        watched.go_on.set()
        until(lambda: watched.count > 1)
        before = watched.count
        sh("ip", "-n", namespace, "link", "del", "br0")  # and it still listens
        until(lambda: watched.count > before)
