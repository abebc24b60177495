"""An applier with everything around it in memory, and what it is asked to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

from servers.hostnet.reconcile.apply import Applier
from servers.hostnet.reconcile.desired import Desired
from servers.hostnet.reconcile.reported import FullReport
from servers.hostnet.state import (
    AddPeer,
    Forward,
    HostState,
    Interface,
    Peer,
    Route,
)
from tests.servers.hostnet.fakes import FakeFirewall, FakeLinks, FakeSubsystem, FakeWireGuard

NOW = 1_800_000_000.0
A, B = (Peer(name, version, f"{name}-key", (f"10.9.0.{version}/32",)) for name, version in (("a", 2), ("b", 3)))
RED = Interface("wgs1", "red", 51820, ("10.9.0.1/24",), 0, False, 360, (Route("10.0.0.0/8", True),), (A, B))
BLUE = Interface("wgs2", "blue", 51821, ("10.10.0.1/24",), 0, False, 360, (), ())


class Host:
    """An applier with everything around it in memory and clocks that stand still."""

    def __init__(self, directory: Path) -> None:
        self.now = NOW
        self.steady = 100.0
        self.links = FakeLinks()
        self.wireguard = FakeWireGuard(self.links)
        self.firewall = FakeFirewall()
        self.subsystem = FakeSubsystem()
        self.desired = Desired("boot", steady=lambda: self.steady)
        self.flushed: list[set[str]] = []
        self.shut = 0
        self.applier = Applier(
            self.desired,
            self.wireguard,
            self.links,
            directory,
            self._flush,
            [self.firewall, self.subsystem],
            lambda: self.now,
            self._shut,
        )

    def _shut(self) -> None:
        self.shut += 1

    def _flush(self, addresses: Collection[str]) -> int:
        self.flushed.append(set(addresses))
        return len(addresses)

    def keys(self, interface: str = "wgs1") -> set[str]:
        return set(self.wireguard.devices[interface].peers)


def full(*interfaces: Interface, version: int = 10) -> HostState:
    return HostState("h", version, "boot", 9790, interfaces)


def texts(report: FullReport) -> list[str]:
    return [condition.text for condition in report.conditions]


def add(name: str, version: int, *, replaces: tuple[str, ...] = (), address: int = 0) -> AddPeer:
    return AddPeer("red", Peer(name, version, f"{name}-key", (f"10.9.0.{address or version}/32",)), replaces)


SITE = ("192.168.7.0/24", "fd77::/48")
FORWARD = Forward("tcp", 8080, 8080, 80)


def gateway(name: str, version: int, networks: tuple[str, ...] = SITE, *, forwards: tuple[Forward, ...] = ()) -> Peer:
    return dataclasses.replace(add(name, version).peer, networks=networks, forwards=forwards)


def routed(host: Host, interface: str = "wgs1") -> set[str]:
    return {*host.links.links[interface].routes}


def allowed(host: Host, name: str) -> set[str]:
    return {*host.wireguard.devices["wgs1"].peers[f"{name}-key"].allowed_ips}
