"""Carrying out: full states, batches, silence; what fails is reported, and done by the next apply."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

from servers.hostnet.netlink.conntrack import ConntrackError
from servers.hostnet.reconcile.apply import Applier
from servers.hostnet.state import (
    AddPeer,
    HostCondition,
    RemovePeers,
    Severity,
)
from tests.servers.hostnet.reconcile.applied import BLUE, NOW, RED, A, B, Host, add, full, texts


def test_full_state_is_made_and_then_nothing_is_touched(host: Host) -> None:
    report = host.applier.full(full(RED, BLUE))
    assert report is not None
    assert (report.version, report.drift, report.conditions, report.gone) == (10, [], [], [])
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
    assert texts(report) == ["wgs1: refused"]
    assert list(host.wireguard.devices) == ["wgs2"]
    host.wireguard.broken.clear()
    again = host.applier.full(full(RED, BLUE, version=11))
    assert again is not None
    assert (again.conditions, again.drift) == ([], [])  # its own unfinished work is nobody's drift
    assert host.keys() == {"a-key", "b-key"}


def test_interface_that_does_not_go_keeps_its_peers_from_being_reported_gone(host: Host) -> None:
    host.applier.full(full(RED, BLUE))
    host.wireguard.broken.add("wgs1")
    report = host.applier.full(full(BLUE, version=11))
    assert report is not None
    assert (texts(report), report.gone) == (["wgs1: refused"], [])
    report = host.applier.full(full(BLUE, version=12))
    assert report is not None
    assert (texts(report), report.gone) == (["wgs1: refused"], [])
    host.wireguard.broken.clear()
    report = host.applier.full(full(BLUE, version=13))
    assert report is not None
    assert {gone.connection for gone in report.gone} == {"a", "b"}
    assert host.flushed == [{"10.9.0.2/32", "10.9.0.3/32"}]


def test_no_tunnel_is_made_without_the_firewall_but_peers_are_still_removed(host: Host) -> None:
    host.applier.full(full(RED))
    host.firewall.broken = True
    report = host.applier.full(full(dataclasses.replace(RED, peers=(B,)), BLUE, version=11))
    assert report is not None
    assert report.conditions == [
        HostCondition("firewall_failed", Severity.ERROR, "nft: refused"),
        HostCondition("interface_failed", Severity.ERROR, "wgs2: not made without the firewall"),
    ]
    assert list(host.wireguard.devices) == ["wgs1"]
    assert host.keys() == {"b-key"}


def test_host_is_not_told_to_route_without_the_firewall(host: Host) -> None:
    host.firewall.broken = True
    host.applier.full(full(RED))
    assert not host.links.forwarding
    host.firewall.broken = False
    host.applier.full(full(RED, version=11))
    assert host.links.forwarding


def test_key_that_cannot_be_read_leaves_its_interface_alone(host: Host, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "red").write_text("not a key\n")
    report = host.applier.full(full(RED, BLUE))
    assert report is not None
    assert "red" in texts(report)[0]
    assert "not a key" not in texts(report)[0]
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
    assert host.flushed == [{"10.9.0.2/32"}]
    # An address that passes to another peer in the same breath is in use, and its connections are not cut.
    host.applier.changes([add("n", 21, replaces=("b",), address=3)])
    assert host.flushed == [{"10.9.0.2/32"}]
    # A stranger's address is released as well.
    of_a = next(peer for peer in host.wireguard.requests[0][1] if peer.public_key == "a-key")
    host.wireguard.set("wgs1", peers=[dataclasses.replace(of_a, public_key="x")])
    host.applier.full(full(dataclasses.replace(RED, peers=()), version=21))
    assert host.flushed[1:] == [{"10.9.0.2/32", "10.9.0.3/32"}]


def test_connection_tracking_that_fails_does_not_keep_a_removal_from_being_reported(tmp_path: Path) -> None:
    host = Host(tmp_path)

    def refuse(_: Collection[str]) -> int:
        raise ConntrackError("conntrack: refused")

    applier = Applier(host.desired, host.wireguard, host.links, tmp_path, refuse, [host.firewall], lambda: NOW)
    applier.full(full(RED))
    assert [gone.connection for gone in applier.changes([RemovePeers(20, ("a",))]).gone] == ["a"]
