"""What follows the peers of a host: forwards, networks, and whoever else must know."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from servers.hostnet.firewall.table import FirewallError
from servers.hostnet.observed import HostRoute
from servers.hostnet.state import (
    AddPeer,
    HostCondition,
    Interface,
    Peer,
    RemovePeers,
    Severity,
)
from tests.servers.hostnet.reconcile.applied import (
    BLUE,
    FORWARD,
    NOW,
    RED,
    SITE,
    A,
    B,
    Host,
    add,
    allowed,
    full,
    gateway,
    routed,
    texts,
)


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
    assert report.drift == ["wgs1: link down, or another MTU or group"]


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
