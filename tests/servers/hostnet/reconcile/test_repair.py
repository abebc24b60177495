"""What others take away is put back without a message, and somebody who does it again and again is told of."""

from __future__ import annotations

from pathlib import Path

import pytest

from servers.hostnet.firewall.table import FirewallError
from servers.hostnet.netlink.links import LinkError
from servers.hostnet.reconcile.contest import CALM, LONGEST_PAUSE, MANY, Contest
from servers.hostnet.state import AddPeer, RemovePeers
from servers.hostnet.wireguard.base import PeerChange
from tests.servers.hostnet.reconcile.applied import BLUE, RED, SITE, Host, full, gateway, routed

TABLE = "the nftables table was changed or removed"


@pytest.fixture
def settled(tmp_path: Path) -> Host:
    """A host that has taken a full state."""
    host = Host(tmp_path)
    report = host.applier.full(full(RED, BLUE))
    assert report is not None
    assert report.settled
    return host


def test_nothing_is_reported_where_nothing_was_amiss(settled: Host) -> None:
    requests = list(settled.wireguard.requests)
    assert settled.applier.repair(tunnels=False) is None
    assert settled.applier.repair(tunnels=True) is None
    assert settled.wireguard.requests == requests


def test_table_is_put_back_and_reported_with_all_that_a_full_state_reports(settled: Host) -> None:
    settled.firewall.changed_by_others = True
    report = settled.applier.repair(tunnels=False)
    assert report is not None
    assert (report.version, report.drift, report.conditions, report.settled) == (10, [TABLE], [], True)
    assert report.keys.keys() == {"red", "blue"}
    assert not settled.firewall.changed_by_others
    assert settled.applier.repair(tunnels=False) is None


def test_tunnels_are_read_where_they_may_have_lost_something(settled: Host) -> None:
    settled.wireguard.delete("wgs2")
    settled.links.delete("wgs2")
    settled.links.remove_address("wgs1", "10.9.0.1/24")
    settled.wireguard.set("wgs1", peers=[PeerChange("a-key", remove=True)])
    assert settled.applier.repair(tunnels=False) is None
    report = settled.applier.repair(tunnels=True)
    assert report is not None
    assert "wgs1: address 10.9.0.1/24 was gone" in report.drift
    assert "wgs1: peers gone: 1" in report.drift
    assert "wgs2: the interface was gone" in report.drift
    assert settled.keys() == {"a-key", "b-key"}
    assert settled.applier.repair(tunnels=True) is None


def test_peers_are_read_only_where_links_addresses_or_routes_are_not_as_they_should_be(settled: Host) -> None:
    settled.applier.changes([AddPeer("red", gateway("gate", 11))])
    assert routed(settled) == {*SITE}
    reads = settled.wireguard.reads
    assert settled.applier.repair(tunnels=True) is None
    # One that leaves takes its routes with it, which the kernel tells of like of any other loss.
    settled.applier.changes([RemovePeers(12, ("gate",))])
    assert settled.applier.repair(tunnels=True) is None
    assert settled.wireguard.reads == reads
    settled.applier.changes([AddPeer("red", gateway("gate2", 13))])
    settled.links.remove_route("wgs1", SITE[0])
    report = settled.applier.repair(tunnels=True)
    assert report is not None
    assert report.drift == [f"wgs1: the route to {SITE[0]} was gone"]
    assert routed(settled) == {*SITE}


def test_table_is_put_back_before_the_tunnels_are_read(settled: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise LinkError("netlink: refused")

    settled.firewall.changed_by_others = True
    monkeypatch.setattr(settled.links, "observe", refuse)
    report = settled.applier.repair(tunnels=False)
    assert report is not None
    assert not settled.firewall.changed_by_others
    assert not report.settled
    assert [condition.code for condition in report.conditions] == ["host_unreadable"]


def test_table_that_cannot_be_put_back_is_tried_again_without_any_event(settled: Host) -> None:
    settled.firewall.changed_by_others = settled.firewall.broken = True
    for _ in range(2):
        report = settled.applier.repair(tunnels=False)
        assert report is not None
        assert not report.settled
        assert "firewall_failed" in [condition.code for condition in report.conditions]
    settled.firewall.broken = False
    report = settled.applier.repair(tunnels=False)
    assert report is not None
    assert report.settled
    assert settled.applier.repair(tunnels=False) is None


def test_table_that_cannot_be_looked_at_is_not_taken_for_whole(settled: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> list[str]:
        raise FirewallError("nft: TimeoutExpired")

    with monkeypatch.context() as patch:
        patch.setattr(settled.firewall, "drift", unknown)
        report = settled.applier.repair(tunnels=False)
    assert report is not None
    assert not report.settled
    settled.firewall.changed_by_others = True
    report = settled.applier.repair(tunnels=False)
    assert report is not None
    assert report.settled


def test_before_the_first_full_state_only_what_keeps_the_host_shut_is_put_back(tmp_path: Path) -> None:
    host = Host(tmp_path)
    assert host.applier.repair(tunnels=True) is None
    assert host.shut == 1
    assert host.firewall.text == ""
    host.applier.full(full(RED))
    host.applier.repair(tunnels=True)
    assert host.shut == 1


def test_who_changes_it_again_and_again_is_told_of_and_no_more_once_it_is_quiet(settled: Host) -> None:
    for count in range(1, MANY + 1):
        settled.firewall.changed_by_others = True
        report = settled.applier.repair(tunnels=False)
        assert report is not None
        assert [condition.code for condition in report.conditions] == ["contested"] * (count >= MANY)
    report = settled.applier.full(full(RED, BLUE))
    assert report is not None
    assert [condition.code for condition in report.conditions] == ["contested"]
    settled.now += CALM + 1
    report = settled.applier.full(full(RED, BLUE))
    assert report is not None
    assert report.conditions == []


def test_pauses_grow_up_to_the_longest_and_begin_anew_after_a_calm() -> None:
    now = 100.0
    contest = Contest(lambda: now)
    assert contest.pause() == 0
    pauses = []
    for _ in range(2000):
        contest.note()
        pauses.append(contest.pause())
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-1] == LONGEST_PAUSE
    now += CALM + 1
    contest.note()
    assert contest.pause() == 0.1
