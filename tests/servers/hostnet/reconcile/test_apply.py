"""Carrying out: full states, batches, silence; what fails is reported, and done by the next apply."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from servers.hostnet.firewall.table import FirewallError
from servers.hostnet.netlink.conntrack import ConntrackError
from servers.hostnet.observed import HostRoute
from servers.hostnet.reconcile.apply import HANDSHAKE_LIFE, Applier, FullReport
from servers.hostnet.reconcile.desired import Desired
from servers.hostnet.reconcile.held import Gone
from servers.hostnet.state import (
    AddPeer,
    Forward,
    HostCondition,
    HostState,
    Interface,
    Peer,
    RemovePeers,
    Route,
    Severity,
)
from tests.servers.hostnet.fakes import FakeFirewall, FakeLinks, FakeSubsystem, FakeWireGuard

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
        self.subsystem = FakeSubsystem()
        self.desired = Desired("boot")
        self.flushed: list[set[str]] = []
        self.applier = Applier(
            self.desired,
            self.wireguard,
            self.links,
            directory,
            self._flush,
            [self.firewall, self.subsystem],
            lambda: self.now,
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


def texts(report: FullReport) -> list[str]:
    return [condition.text for condition in report.conditions]


def add(name: str, version: int, *, replaces: tuple[str, ...] = (), address: int = 0) -> AddPeer:
    return AddPeer("red", Peer(name, version, f"{name}-key", (f"10.9.0.{address or version}/32",)), replaces)


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
    host.wireguard.set("wgs1", peers=[dataclasses.replace(host.wireguard.requests[0][1][0], public_key="x")])
    host.applier.full(full(dataclasses.replace(RED, peers=()), version=21))
    assert host.flushed[1:] == [{"10.9.0.2/32", "10.9.0.3/32"}]


def test_connection_tracking_that_fails_does_not_keep_a_removal_from_being_reported(tmp_path: Path) -> None:
    host = Host(tmp_path)

    def refuse(_: Collection[str]) -> int:
        raise ConntrackError("conntrack: refused")

    applier = Applier(host.desired, host.wireguard, host.links, tmp_path, refuse, [host.firewall], lambda: NOW)
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


# What follows the peers: forwards, networks, and whoever else must know

SITE = ("192.168.7.0/24", "fd77::/48")
FORWARD = Forward("tcp", 8080, 8080, 80)


def gateway(name: str, version: int, networks: tuple[str, ...] = SITE, *, forwards: tuple[Forward, ...] = ()) -> Peer:
    return dataclasses.replace(add(name, version).peer, networks=networks, forwards=forwards)


def routed(host: Host, interface: str = "wgs1") -> set[str]:
    return {*host.links.links[interface].routes}


def allowed(host: Host, name: str) -> set[str]:
    return {*host.wireguard.devices["wgs1"].peers[f"{name}-key"].allowed_ips}


def test_plain_connect_asks_nothing_of_the_firewall_and_one_with_ports_does_at_once(host: Host) -> None:
    host.applier.full(full(RED))
    host.applier.changes([add("plain", 20)])
    assert host.firewall.asked == []
    with_port = gateway("n", 21, (), forwards=(FORWARD,))
    assert host.applier.changes([AddPeer("red", with_port)]).answers == [""]
    host.applier.changes([AddPeer("red", gateway("m", 22), replaces=("n",))])
    host.applier.changes([RemovePeers(23, ("m",))])
    host.applier.changes([RemovePeers(24, ("plain",))])
    assert host.firewall.asked == [("wgs1", [], ["n"]), ("wgs1", ["n"], ["m"])]


def test_peer_whose_ports_the_firewall_refuses_is_not_confirmed_and_is_done_later(host: Host) -> None:
    host.applier.full(full(RED, BLUE))
    host.firewall.broken = True
    blue = AddPeer("blue", Peer("p", 20, "p-key", ("10.10.0.2/32",)))
    message = AddPeer("red", gateway("n", 21, (), forwards=(FORWARD,)))
    report = host.applier.changes([message, blue, RemovePeers(22, ("a",))])
    assert report.answers == ["nft: refused", "", ""]  # the other server's peer has nothing to do with it
    assert report.gone == []
    assert host.subsystem.told[-1] == ("wgs2", [], ["p"])
    host.firewall.broken = False
    report = host.applier.changes([message])
    assert report.answers == [""]
    assert [gone.connection for gone in report.gone] == ["a"]
    assert host.firewall.asked == [("wgs1", ["a"], ["n"])]


def test_peer_that_was_refused_and_then_removed_does_not_stay_in_wireguard(host: Host) -> None:
    host.applier.full(full(RED))
    host.firewall.broken = True
    host.applier.changes([AddPeer("red", gateway("n", 20, forwards=(FORWARD,)))])
    host.firewall.broken = False
    host.applier.changes([RemovePeers(21, ("n",))])
    assert host.keys() == {"a-key", "b-key"}


def test_what_the_firewall_could_not_do_is_taken_back_from_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.applier.full(full(RED))
    change, asked = host.firewall.change, []

    def refuse_once(interface: Interface, gone: Sequence[Peer], new: Sequence[Peer]) -> None:
        asked.append(([peer.connection for peer in gone], [peer.connection for peer in new]))
        if len(asked) == 1:
            raise FirewallError("nft: refused")
        change(interface, gone, new)

    monkeypatch.setattr(host.firewall, "change", refuse_once)
    report = host.applier.changes([AddPeer("red", gateway("n", 20, forwards=(FORWARD,)))])
    assert report.answers == ["nft: refused"]
    assert asked == [([], ["n"]), (["n"], [])]
    # Nobody asks it for this peer again when the client has given up.
    host.applier.changes([RemovePeers(21, ("n",))])
    assert len(asked) == 2
    assert host.keys() == {"a-key", "b-key"}


def test_networks_behind_a_peer_are_routed_with_it(host: Host) -> None:
    host.applier.full(full(RED))
    assert host.applier.changes([AddPeer("red", gateway("n", 20))]).answers == [""]
    assert routed(host) == {*SITE}
    assert allowed(host, "n") == {"10.9.0.20/32", *SITE}
    report = host.applier.full(full(dataclasses.replace(RED, peers=(A, B, gateway("n", 20))), version=20))
    assert report is not None
    assert (report.drift, report.conditions) == ([], [])
    host.applier.changes([RemovePeers(21, ("n",))])
    assert routed(host) == set()
    assert host.flushed == [{"10.9.0.20/32", *SITE}]


def test_networks_pass_from_one_peer_to_another_without_being_nobodys(host: Host) -> None:
    first, standby = gateway("first", 4), gateway("standby", 5, ())
    host.applier.full(full(dataclasses.replace(RED, peers=(first, standby))))
    changes = host.links.changes
    host.wireguard.requests.clear()
    moved = (dataclasses.replace(first, networks=()), dataclasses.replace(standby, networks=SITE))
    report = host.applier.full(full(dataclasses.replace(RED, peers=moved), version=11))
    assert report is not None
    assert (report.drift, report.conditions, report.gone) == ([], [], [])
    assert (allowed(host, "first"), allowed(host, "standby")) == ({"10.9.0.4/32"}, {"10.9.0.5/32", *SITE})
    # One request in which the winner comes first, no route touched, no connection forgotten.
    ((_, request),) = host.wireguard.requests
    assert [change.public_key for change in request] == ["standby-key", "first-key"]
    assert (routed(host), host.links.changes, host.flushed) == ({*SITE}, changes, [])


def test_newest_of_those_that_name_a_network_has_it_and_the_next_one_after_it(host: Host) -> None:
    host.applier.full(full(dataclasses.replace(RED, peers=(gateway("old", 4),))))
    host.applier.changes([AddPeer("red", gateway("new", 20, SITE[:1]))])
    assert allowed(host, "new") == {"10.9.0.20/32", SITE[0]}
    assert allowed(host, "old") == {"10.9.0.4/32", SITE[1]}
    assert host.subsystem.told[-1] == ("wgs1", ["old"], ["new", "old"])
    report = host.applier.full(
        full(dataclasses.replace(RED, peers=(gateway("old", 4), gateway("new", 20, SITE[:1]))), version=20)
    )
    assert report is not None
    assert report.drift == []
    host.applier.changes([RemovePeers(21, ("new",))])
    assert allowed(host, "old") == {"10.9.0.4/32", *SITE}
    assert routed(host) == {*SITE}
    assert host.flushed == [{"10.9.0.20/32"}]


def test_network_that_the_host_has_itself_is_reported_and_holds_up_nothing(host: Host) -> None:
    host.links.host_routes = (HostRoute(SITE[0], "lan0", True),)
    state = full(dataclasses.replace(RED, peers=(A, gateway("n", 4))))
    report = host.applier.full(state)
    words = "wgs1: 192.168.7.0/24 is not routed to its client: the host itself has 192.168.7.0/24 on lan0"
    assert report is not None
    assert report.conditions == [HostCondition("route_refused", Severity.WARNING, words)]
    assert routed(host) == {SITE[1]}
    assert host.keys() == {"a-key", "n-key"}
    # It is not taken for drift either, and what others change is still told.
    host.wireguard.devices["wgs1"].peers.pop("a-key")
    report = host.applier.full(dataclasses.replace(state, version=11))
    assert report is not None
    assert (texts(report), report.drift) == ([words], ["wgs1: peers gone: 1"])
    # A client that connects with it is let in; once the network is free it is routed.
    assert host.applier.changes([AddPeer("red", gateway("m", 20, SITE[:1]))]).answers == [""]
    assert routed(host) == {SITE[1]}
    host.links.host_routes = ()
    report = host.applier.full(dataclasses.replace(state, version=12))
    assert report is not None
    assert (report.conditions, report.drift) == ([], [])
    assert routed(host) == {*SITE}


def test_route_that_was_deleted_is_drift_and_comes_back(host: Host) -> None:
    state = full(dataclasses.replace(RED, peers=(gateway("n", 4),)))
    host.applier.full(state)
    host.links.remove_route("wgs1", SITE[1])
    report = host.applier.full(dataclasses.replace(state, version=11))
    assert report is not None
    assert report.drift == ["wgs1: the route to fd77::/48 was gone"]
    assert routed(host) == {*SITE}


def test_mtu_follows_the_way_out_and_that_is_nobodys_drift(host: Host) -> None:
    host.applier.full(full(RED))
    assert host.links.links["wgs1"].mtu == 1420
    host.links.outer_mtu = 1400
    report = host.applier.full(full(RED, version=11))
    assert report is not None
    assert report.drift == []
    assert host.links.links["wgs1"].mtu == 1320
    host.links.bring_up("wgs1", 1300)
    report = host.applier.full(full(RED, version=12))
    assert report is not None
    assert report.drift == ["wgs1: link down or another MTU"]


def test_followers_hear_everything_after_a_full_state_and_then_what_changes(host: Host) -> None:
    host.applier.full(full(RED, BLUE))
    host.applier.changes([add("n", 20, replaces=("a",)), RemovePeers(21, ("unknown",))])
    host.applier.changes([add("n", 20)])  # again, and nothing changed
    host.wireguard.broken.add("wgs1")
    host.applier.changes([RemovePeers(22, ("n",))])  # not so yet
    host.wireguard.broken.clear()
    host.applier.changes([RemovePeers(22, ("n",))])
    assert host.subsystem.told == [
        ("apply", [], ["a", "b"]),
        ("wgs1", ["a"], ["n"]),
        ("wgs1", ["n"], []),
    ]
    assert host.applier.full(full(RED, version=1)) is None
    assert len(host.subsystem.told) == 3


def test_followers_hear_of_silent_peers(host: Host) -> None:
    host.applier.full(full(RED))
    host.now = NOW + 361
    host.applier.drop_silent()
    assert host.subsystem.told[-1] == ("wgs1", ["a", "b"], [])


# What would be done, without doing it


def test_preview_says_what_a_state_would_change_and_changes_nothing(host: Host, tmp_path: Path) -> None:
    host.applier.full(full(RED))
    host.applier.changes([add("n", 20)])
    n = add("n", 20).peer
    assert host.applier.preview(full(dataclasses.replace(RED, peers=(A, B, n)), version=20)) == []
    before = (dict(host.links.links), dict(host.wireguard.devices), host.firewall.text, host.desired.interfaces())
    other = dataclasses.replace(RED, peers=(A, gateway("m", 21)), mtu=1300)
    host.subsystem.would = ["wgs1: start its DNS server"]
    assert host.applier.preview(full(other, BLUE, version=21)) == [
        "the nftables table: write it anew",
        "wgs1: bring the link up with MTU 1300",
        "wgs1: peers to add: 1, to remove: 2",
        "wgs1: route 192.168.7.0/24 to it",
        "wgs1: route fd77::/48 to it",
        "wgs2: make the interface",
        "wgs2: set its private key and port 51821",
        "wgs2: add address 10.10.0.1/24",
        "wgs2: bring the link up with MTU 1420",
        "wgs1: start its DNS server",
    ]
    host.subsystem.would = []
    assert host.applier.preview(full(version=21)) == ["the nftables table: write it anew", "wgs1: delete the interface"]
    after = (dict(host.links.links), dict(host.wireguard.devices), host.firewall.text, host.desired.interfaces())
    assert after == before
    assert (host.desired.version, host.desired.changed()) == (10, [])
    assert not host.desired.ended("a")
    assert [file.name for file in (tmp_path / "keys").iterdir()] == ["red"]  # and no key was made


def test_preview_of_a_state_that_would_be_ignored_says_so(host: Host) -> None:
    host.applier.full(full(RED))
    assert host.applier.preview(full(version=9)) is None
    assert host.applier.preview(dataclasses.replace(full(version=99), boot="other")) is None


def test_preview_before_the_first_full_state_compares_with_what_an_earlier_run_left(host: Host, tmp_path: Path) -> None:
    host.applier.full(full(RED))
    again = Applier(Desired("boot"), host.wireguard, host.links, tmp_path / "keys", lambda _: 0, [host.firewall])
    assert again.preview(full(RED)) == []
    # And it is still the first full state that makes this run take single changes.
    assert again.changes([add("n", 20)]).answers == ["no full state yet"]
