"""Carrying out: full states, batches, silence; what fails is reported, and done by the next apply."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

import pytest

from servers.hostnet.apply import HANDSHAKE_LIFE, Applier
from servers.hostnet.conntrack import ConntrackError
from servers.hostnet.state import AddPeer, HostState, Interface, Peer, RemovePeers, Route
from servers.hostnet.wanted import Gone, Wanted
from tests.hostnet_fakes import FakeFirewall, FakeLinks, FakeWireGuard

NOW = 1_800_000_000.0
A, B = (Peer(name, version, f"{name}-key", (f"10.9.0.{version}/32",)) for name, version in (("a", 2), ("b", 3)))
RED = Interface("wgs1", "red", 51820, ("10.9.0.1/24",), 0, False, 360, (Route("10.0.0.0/8", True),), (A, B))
BLUE = Interface("wgs2", "blue", 51821, ("10.10.0.1/24",), 0, False, 360, (), ())


class Host:
    """An applier with everything around it in memory and a clock that stands still."""

    def __init__(self, directory: Path) -> None:
        self.now = NOW
        self.links = FakeLinks()
        self.wireguard = FakeWireGuard(self.links)
        self.firewall = FakeFirewall()
        self.wanted = Wanted("boot")
        self.flushed: list[set[str]] = []
        self.applier = Applier(
            self.wanted, self.wireguard, self.links, self.firewall, directory, self._flush, lambda: self.now
        )

    def _flush(self, addresses: Collection[str]) -> int:
        self.flushed.append(set(addresses))
        return len(addresses)

    def keys(self, interface: str = "wgs1") -> set[str]:
        return set(self.wireguard.devices[interface].peers)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "keys")


def full(*interfaces: Interface, version: int = 10) -> HostState:
    return HostState("h", version, "boot", 9790, interfaces)


def add(name: str, version: int, *, replaces: tuple[str, ...] = (), address: int = 0) -> AddPeer:
    return AddPeer("red", Peer(name, version, f"{name}-key", (f"10.9.0.{address or version}/32",)), replaces)


def test_full_state_is_made_and_then_nothing_is_touched(host: Host) -> None:
    report = host.applier.full(full(RED, BLUE))
    assert report is not None
    assert (report.version, report.drift, report.error, report.gone) == (10, [], "", [])
    assert host.keys() == {"a-key", "b-key"}
    assert report.keys == {
        name: host.wireguard.devices[i].public_key for name, i in (("red", "wgs1"), ("blue", "wgs2"))
    }
    assert host.links.links["wgs1"].addresses == {"10.9.0.1/24"}
    assert host.links.forwarding
    assert "wgs1_routes4" in host.firewall.text
    requests = len(host.wireguard.requests)
    again = host.applier.full(full(RED, BLUE, version=11))
    assert again is not None
    assert again.keys == report.keys
    assert len(host.wireguard.requests) == requests


def test_stale_state_changes_nothing(host: Host) -> None:
    host.applier.full(full(RED))
    assert host.applier.full(full(BLUE, version=9)) is None
    assert host.applier.full(dataclasses.replace(full(BLUE, version=99), boot="other")) is None
    assert list(host.wireguard.devices) == ["wgs1"]


def test_batch_is_one_request_and_reads_no_device(host: Host) -> None:
    host.applier.full(full(RED))
    host.wireguard.requests.clear()
    reads = host.wireguard.reads
    batch: list[AddPeer | RemovePeers] = [
        *(add(f"n{version}", version) for version in range(20, 120)),
        RemovePeers(120, ("a", "unknown")),
    ]
    report = host.applier.changes(batch)
    assert report.answers == [""] * 101
    assert len(host.wireguard.requests) == 1
    assert len(host.wireguard.requests[0][1]) == 101
    assert host.wireguard.reads == reads
    assert len(host.keys()) == 101
    assert {gone.connection for gone in report.gone} == {"a", "unknown"}


def test_what_wireguard_refused_is_not_confirmed_and_is_done_later(host: Host) -> None:
    host.applier.full(full(RED))
    host.wireguard.broken.add("wgs1")
    report = host.applier.changes([add("n", 20), RemovePeers(21, ("a",))])
    assert report.answers == ["wgs1: refused", ""]
    assert report.gone == []  # a is still there, so nobody is told it is gone
    assert host.keys() == {"a-key", "b-key"}
    # The same message again is not taken for done because its connection is known.
    assert host.applier.changes([add("n", 20)]).answers == ["wgs1: refused"]
    host.wireguard.broken.clear()
    report = host.applier.changes([add("n", 20)])
    assert report.answers == [""]
    assert [gone.connection for gone in report.gone] == ["a"]
    assert host.keys() == {"b-key", "n-key"}


def test_addition_that_the_same_batch_ends_is_not_confirmed(host: Host) -> None:
    host.applier.full(full(RED))
    report = host.applier.changes([add("n", 20), RemovePeers(21, ("n",)), add("m", 22)])
    assert report.answers == ["this connection has ended", "", ""]
    assert host.keys() == {"a-key", "b-key", "m-key"}


def test_nothing_is_done_before_the_first_full_state(host: Host) -> None:
    report = host.applier.changes([add("n", 20), RemovePeers(21, ("a",))])
    assert report.answers == ["no full state yet", ""]
    assert report.gone == []
    first = host.applier.full(full(RED, version=20))
    assert first is not None
    # The removal is remembered, and reported when it is true.
    assert [gone.connection for gone in first.gone] == ["a"]
    assert host.keys() == {"b-key"}


def test_part_that_fails_does_not_hold_up_the_rest(host: Host) -> None:
    host.wireguard.broken.add("wgs1")
    report = host.applier.full(full(RED, BLUE))
    assert report is not None
    assert report.error == "wgs1: refused"
    assert list(host.wireguard.devices) == ["wgs2"]
    host.wireguard.broken.clear()
    again = host.applier.full(full(RED, BLUE, version=11))
    assert again is not None
    assert (again.error, again.drift) == ("", [])  # its own unfinished work is nobody's drift
    assert host.keys() == {"a-key", "b-key"}


def test_interface_that_does_not_go_keeps_its_peers_from_being_reported_gone(host: Host) -> None:
    host.applier.full(full(RED, BLUE))
    host.wireguard.broken.add("wgs1")
    report = host.applier.full(full(BLUE, version=11))
    assert report is not None
    assert (report.error, report.gone) == ("wgs1: refused", [])
    report = host.applier.full(full(BLUE, version=12))
    assert report is not None
    assert (report.error, report.gone) == ("wgs1: refused", [])
    host.wireguard.broken.clear()
    report = host.applier.full(full(BLUE, version=13))
    assert report is not None
    assert {gone.connection for gone in report.gone} == {"a", "b"}
    assert host.flushed == [{"10.9.0.2", "10.9.0.3"}]


def test_no_tunnel_is_made_without_the_firewall_but_peers_are_still_removed(host: Host) -> None:
    host.applier.full(full(RED))
    host.firewall.broken = True
    report = host.applier.full(full(dataclasses.replace(RED, peers=(B,)), BLUE, version=11))
    assert report is not None
    assert report.error == "nft: refused; wgs2: not made without the firewall"
    assert list(host.wireguard.devices) == ["wgs1"]
    assert host.keys() == {"b-key"}


def test_key_that_cannot_be_read_leaves_its_interface_alone(host: Host, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "red").write_text("not a key\n")
    report = host.applier.full(full(RED, BLUE))
    assert report is not None
    assert "red" in report.error
    assert "not a key" not in report.error
    assert list(host.wireguard.devices) == ["wgs2"]


def test_drift_is_what_others_changed_not_what_was_asked(host: Host) -> None:
    host.applier.full(full(RED))
    asked = host.applier.full(full(dataclasses.replace(RED, peers=(A,), mtu=1300), BLUE, version=11))
    assert asked is not None
    assert asked.drift == []
    host.applier.changes([add("n", 20)])
    del host.wireguard.devices["wgs1"].peers["a-key"]
    host.firewall.changed_by_others = True
    report = host.applier.full(full(dataclasses.replace(RED, peers=(A,), mtu=1300), version=12))
    assert report is not None
    assert report.drift == ["the nftables table was changed or removed", "wgs1: peers gone: 1"]
    assert host.keys() == {"a-key", "n-key"}


def test_connections_of_released_addresses_are_forgotten(host: Host) -> None:
    host.applier.full(full(RED))
    assert host.flushed == []
    host.applier.changes([RemovePeers(20, ("a",))])
    assert host.flushed == [{"10.9.0.2"}]
    # An address that passes to another peer in the same breath is in use, and its connections are not cut.
    host.applier.changes([add("n", 21, replaces=("b",), address=3)])
    assert host.flushed == [{"10.9.0.2"}]
    # A stranger's address is released as well.
    host.wireguard.set("wgs1", peers=[dataclasses.replace(host.wireguard.requests[0][1][0], public_key="x")])
    host.applier.full(full(dataclasses.replace(RED, peers=()), version=21))
    assert host.flushed[1:] == [{"10.9.0.2", "10.9.0.3"}]


def test_connection_tracking_that_fails_does_not_keep_a_removal_from_being_reported(tmp_path: Path) -> None:
    host = Host(tmp_path)

    def refuse(_: Collection[str]) -> int:
        raise ConntrackError("conntrack: refused")

    applier = Applier(host.wanted, host.wireguard, host.links, host.firewall, tmp_path, refuse, lambda: NOW)
    applier.full(full(RED))
    assert [gone.connection for gone in applier.changes([RemovePeers(20, ("a",))]).gone] == ["a"]


@pytest.mark.parametrize(
    ("timeout", "handshake", "added", "stays"),
    [
        (360, NOW - 359, NOW - 1000, True),
        (360, NOW - 361, NOW - 1000, False),
        (360, 0, NOW - 359, True),  # no handshake yet: counted from when it was added
        (360, 0, NOW - 361, False),
        (360, NOW - 361, NOW - 10, False),  # taken over from an earlier run: the handshake counts
        # A healthy session may be older than a short ping timeout: handshakes are not pings.
        (10, NOW - HANDSHAKE_LIFE + 1, NOW - 1000, True),
        (10, NOW - HANDSHAKE_LIFE - 1, NOW - 1000, False),
    ],
)
def test_silent_peers_are_dropped(host: Host, timeout: int, handshake: float, added: float, stays: bool) -> None:
    host.now = added
    host.applier.full(full(dataclasses.replace(RED, ping_timeout=timeout)))
    host.now = NOW
    host.wireguard.shake_hands("wgs1", "a-key", int(handshake))
    host.wireguard.shake_hands("wgs1", "b-key", int(NOW))
    gone = host.applier.drop_silent()
    assert host.keys() == ({"a-key", "b-key"} if stays else {"b-key"})
    assert gone == ([] if stays else [Gone("a", "silent", "red", A.allowed_ips)])
    # A full state that does not know it yet does not bring it back.
    host.applier.full(full(RED, version=11))
    assert host.keys() == ({"a-key", "b-key"} if stays else {"b-key"})
