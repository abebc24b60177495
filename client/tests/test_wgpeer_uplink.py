"""A network change is an address or a default route that comes or goes, and nothing of a tunnel of ours."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator

import pytest
from pyroute2 import netns
from wgpeer.tunnel.uplink import Uplink
from wgpeer_fakes import HANGING
from wgpeer_namespaces import sh

pytestmark = pytest.mark.host


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"wgu{secrets.token_hex(2)}"
    sh("ip", "netns", "add", name)
    for link in ("eth0", "wgp0"):
        sh("ip", "-n", name, "link", "add", link, "type", "bridge")
        sh("ip", "-n", name, "link", "set", link, "up")
    sh("ip", "-n", name, "addr", "add", "192.0.2.10/24", "dev", "eth0")
    sh("ip", "-n", name, "addr", "add", "2001:db8::10/64", "dev", "eth0", "nodad")
    yield name
    sh("ip", "netns", "del", name)


def changed_by(namespace: str, *changes: str) -> list[bool]:
    """For each of these calls of ``ip``, one after the other, whether the uplink says that it has changed."""
    said: list[bool] = []

    def look() -> None:
        netns.setns(namespace)
        uplink = Uplink()
        assert not uplink.has_changed()
        for change in changes:
            sh("ip", "-n", namespace, *change.split())
            said.append(uplink.has_changed())
            assert not uplink.has_changed()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(HANGING)
    return said


def test_addresses_and_default_routes_that_come_and_go_are_changes(namespace: str) -> None:
    changes = [
        "addr add 192.0.2.11/24 dev eth0",
        "route add default via 192.0.2.1 metric 100",
        "route add default via 192.0.2.2 metric 50",
        "-6 route add default via 2001:db8::1",
        "route del default via 192.0.2.1",
        "-6 addr del 2001:db8::10/64 dev eth0",
        "link set eth0 down",
    ]
    assert changed_by(namespace, *changes) == [True] * len(changes)


def test_other_routes_links_their_own_addresses_and_what_a_tunnel_of_ours_has_are_none(namespace: str) -> None:
    changes = [
        "link set eth0 mtu 1400",
        "route add 198.51.100.0/24 via 192.0.2.1",
        "rule add pref 5 lookup main",
        "addr add fe80::5/64 dev eth0 nodad",  # as each container that starts brings one
        "route add default via 192.0.2.1 table 77600",
        "addr add 10.9.0.5/24 dev wgp0",
        "route add default dev wgp0",
        "link set wgp0 down",
    ]
    assert changed_by(namespace, *changes) == [False] * len(changes)
