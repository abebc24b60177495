"""A connection that has ended and lingers: what the host is told of it, when, and for how long."""

from __future__ import annotations

import dataclasses

import pytest

from servers.hostnet.state import AddPeer, HostState, Interface, Peer, RemovePeers
from tests.servers.hostnet.reconcile.applied import FORWARD, RED, SITE, A, B, Host, add, allowed, full, gateway, routed

TIME = 13.0


def end(host: Host, *connections: str, lingers: float = TIME, version: int = 99) -> list[str]:
    report = host.applier.changes([RemovePeers(version, connections, lingers)])
    return [gone.connection for gone in report.gone]


def state(*peers: Peer, version: int = 10) -> HostState:
    return full(dataclasses.replace(RED, peers=peers), version=version)


def wanted(host: Host) -> dict[str, bool]:
    """The desired peers, and whether each lingers."""
    return {peer.connection: peer.lingers > 0 for i in host.desired.interfaces() for peer in i.peers}


def later(host: Host, seconds: float) -> None:
    host.steady += seconds
    assert host.applier.drop_overdue() == []


def test_it_is_gone_for_everybody_at_once_and_its_peer_when_its_time_is_over(host: Host) -> None:
    host.applier.full(full(RED))
    host.flushed.clear()
    assert end(host, "a") == ["a"]
    assert host.keys() == {"a-key", "b-key"}
    assert host.firewall.asked == [("wgs1", ["a"], ["a"])]
    assert host.flushed == [{"10.9.0.2/32"}]
    assert host.applier.peer_count() == 1
    assert not host.desired.holds("a")
    later(host, TIME - 0.1)
    assert host.keys() == {"a-key", "b-key"}
    later(host, 0.1)
    assert host.keys() == {"b-key"}
    assert host.firewall.asked[1:] == [("wgs1", ["a"], [])]
    assert end(host, "a") == ["a"]  # a repeated message is answered by a repeated report, and by nothing else
    assert host.keys() == {"b-key"}


def test_networks_ports_and_names_go_at_once(host: Host) -> None:
    site = dataclasses.replace(gateway("g", 4, forwards=(FORWARD,)), names=("g.example",))
    host.applier.full(state(site))
    assert routed(host) == set(SITE)
    end(host, "g")
    assert allowed(host, "g") == {"10.9.0.4/32"}
    assert routed(host) == set()
    ((peer,),) = [interface.peers for interface in host.desired.interfaces()]
    assert (peer.forwards, peer.names, peer.probes, peer.networks) == ((), (), (), ())


def test_a_standby_takes_the_networks_over_from_one_that_lingers(host: Host) -> None:
    host.applier.full(state(gateway("new", 5), gateway("old", 4)))
    end(host, "new")
    assert allowed(host, "old") == {"10.9.0.4/32", *SITE}


def test_without_time_to_linger_it_goes_at_once(host: Host) -> None:
    host.applier.full(full(RED))
    assert end(host, "a", lingers=0) == ["a"]
    assert host.keys() == {"b-key"}
    end(host, "b")
    assert end(host, "b", lingers=0) == []
    assert host.keys() == set()


def test_later_words_make_it_shorter_and_never_longer(host: Host) -> None:
    host.applier.full(full(RED))
    end(host, "a", "b")
    end(host, "a", lingers=5)
    end(host, "b", lingers=500)
    host.applier.full(state(A.lingering(400), B.lingering(400), version=11))
    later(host, 5)
    assert host.keys() == {"b-key"}
    later(host, TIME - 5)
    assert host.keys() == set()


def test_a_state_whose_message_was_lost_says_it_as_well(host: Host) -> None:
    host.applier.full(full(RED))
    report = host.applier.full(state(A.lingering(TIME), B, version=11))
    assert report is not None
    assert [gone.connection for gone in report.gone] == ["a"]
    assert report.drift == []
    assert wanted(host) == {"a": True, "b": False}
    again = host.applier.full(state(A.lingering(TIME - 1), B, version=12))
    assert again is not None
    assert (again.gone, again.drift) == ([], [])
    gone = host.applier.full(state(B, version=13))
    assert gone is not None
    assert (gone.gone, gone.drift) == ([], [])
    assert host.keys() == {"b-key"}


def test_one_of_an_earlier_run_is_taken_on_and_reported(host: Host) -> None:
    report = host.applier.full(state(A.lingering(TIME), B))
    assert report is not None
    assert [gone.connection for gone in report.gone] == ["a"]
    assert wanted(host) == {"a": True, "b": False}
    assert host.applier.changes([AddPeer("red", dataclasses.replace(A, version=50))]).answers != [""]
    assert wanted(host) == {"a": True, "b": False}


def test_once_gone_no_message_has_it_linger_again(host: Host) -> None:
    host.applier.full(full(RED))
    end(host, "a")
    later(host, TIME)
    end(host, "a")
    host.applier.full(state(A.lingering(TIME), B, version=11))
    host.applier.full(state(A, B, version=12))
    assert wanted(host) == {"b": False}
    end(host, "b", lingers=0)
    host.applier.full(state(B.lingering(TIME), version=13))
    assert wanted(host) == {}


def test_a_late_state_that_has_it_open_does_not_open_it(host: Host) -> None:
    host.applier.full(full(RED))
    end(host, "a")
    host.applier.full(full(RED, version=11))
    assert wanted(host) == {"a": True, "b": False}
    later(host, TIME)
    assert host.keys() == {"b-key"}


@pytest.mark.parametrize("by_state", [False, True])
def test_its_address_belongs_to_the_next_owner_at_once(host: Host, by_state: bool) -> None:
    host.applier.full(full(RED))
    end(host, "a")
    new = add("new", 20, address=2)
    if by_state:
        host.applier.full(state(A.lingering(5), B, new.peer, version=20))
    else:
        assert host.applier.changes([new]).answers == [""]
    assert wanted(host) == {"b": False, "new": False}
    assert host.keys() == {"b-key", "new-key"}
    assert allowed(host, "new") == {"10.9.0.2/32"}
    end(host, "a")
    later(host, TIME)
    assert allowed(host, "new") == {"10.9.0.2/32"}


def test_an_older_connection_does_not_take_the_address_of_one_that_lingers(host: Host) -> None:
    host.applier.full(full(RED, version=1))
    end(host, "b")
    assert host.applier.changes([AddPeer("red", Peer("old", 2, "old-key", B.allowed_ips))]).answers != [""]
    assert wanted(host) == {"a": False, "b": True}


def test_who_is_replaced_does_not_linger(host: Host) -> None:
    host.applier.full(full(RED))
    host.applier.changes([add("new", 20, replaces=("a",), address=2)])
    assert host.keys() == {"b-key", "new-key"}


def test_where_the_firewall_does_not_shut_it_in_it_goes_at_once(host: Host) -> None:
    host.applier.full(full(RED))
    host.firewall.broken = True
    end(host, "a")
    assert host.keys() == {"b-key"}
    host.firewall.broken = False
    host.applier.full(state(A.lingering(TIME), B, version=11))
    assert host.keys() == {"b-key"}


def test_a_state_that_the_firewall_refuses_removes_who_lingers(host: Host) -> None:
    host.applier.full(full(RED))
    host.firewall.broken = True
    host.applier.full(state(A.lingering(TIME), B, version=11))
    assert host.keys() == {"b-key"}


def test_its_peer_goes_before_the_firewall_forgets_it(host: Host) -> None:
    """Else it would pass for an open one in between."""
    host.applier.full(full(RED))
    end(host, "a")
    seen: list[set[str]] = []
    apply = host.firewall.apply

    def look(state: HostState) -> None:
        seen.append(host.keys())
        apply(state)

    host.firewall.apply = look  # type: ignore[method-assign]
    host.applier.full(state(B, version=11))
    assert seen == [{"b-key"}]


def test_it_goes_with_its_interface(host: Host) -> None:
    host.applier.full(full(RED))
    end(host, "a")
    host.applier.full(full(version=11))
    assert "wgs1" not in host.wireguard.devices
    assert wanted(host) == {}
    later(host, TIME)


def test_silence_is_not_asked_of_one_that_lingers(host: Host) -> None:
    host.applier.full(full(RED))
    end(host, "a", lingers=600)
    host.now += RED.ping_timeout + 1
    assert [gone.connection for gone in host.applier.drop_silent()] == ["b"]
    assert host.keys() == {"a-key"}


def test_a_preview_takes_nobodys_time(host: Host) -> None:
    host.applier.full(full(RED))
    end(host, "a")
    host.applier.preview(state(A.lingering(1), B, version=11))
    later(host, 2)
    assert host.keys() == {"a-key", "b-key"}
    lines = host.applier.preview(state(B, version=11))
    assert lines == ["wgs1: peers to remove: 1"] + [line for line in lines or [] if "nftables" in line]


def test_a_server_that_others_share_an_address_with_keeps_its_own(host: Host) -> None:
    """Each server has its own addresses: one that lingers on one of them says nothing of the other."""
    twin = Peer("twin", 4, "twin-key", A.allowed_ips)
    blue = Interface("wgs2", "blue", 51821, ("10.10.0.1/24",), 0, False, 360, (), (twin,))
    host.applier.full(full(RED, blue))
    host.flushed.clear()
    end(host, "a")
    assert host.flushed == []  # somebody open has this address
    later(host, TIME)
    assert host.keys("wgs2") == {"twin-key"}
