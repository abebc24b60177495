"""From one key of a client to the next: the old one goes on until the new one has made its handshake."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.hostnet.state import AddPeer, RemovePeers
from tests.servers.hostnet.reconcile.applied import RED, Host, add, allowed, full


def renewal(name: str = "n", version: int = 20, *, of: str = "a") -> AddPeer:
    """Of connection ``a``, with its address."""
    return dataclasses.replace(add(name, version, replaces=(of,), address=2), hand_over=10.0)


@pytest.fixture
def renewing(host: Host) -> Host:
    host.applier.full(full(RED))
    assert host.applier.changes([renewal()]).answers == [""]
    return host


def test_the_old_key_has_the_address_until_the_new_one_has_made_its_handshake(renewing: Host) -> None:
    assert (allowed(renewing, "a"), allowed(renewing, "n")) == ({"10.9.0.2/32"}, set())
    assert renewing.applier.hand_over() == []
    renewing.wireguard.shake_hands("wgs1", "n-key", 1)
    renewing.wireguard.requests.clear()
    assert [gone.connection for gone in renewing.applier.hand_over()] == ["a"]
    assert renewing.keys() == {"n-key", "b-key"}
    assert allowed(renewing, "n") == {"10.9.0.2/32"}
    # In one request: the address is never without a peer.
    ((_, changes),) = renewing.wireguard.requests
    assert [(change.public_key, change.remove) for change in changes] == [("n-key", False), ("a-key", True)]
    assert renewing.flushed == []  # flows through it go on


def test_who_makes_no_handshake_takes_over_when_the_time_is_over(renewing: Host) -> None:
    renewing.steady += 9.9
    assert renewing.applier.hand_over() == []
    renewing.steady += 0.2
    assert [gone.connection for gone in renewing.applier.hand_over()] == ["a"]
    assert allowed(renewing, "n") == {"10.9.0.2/32"}


def test_a_full_state_or_a_repair_finds_nobody_between_two_keys(renewing: Host) -> None:
    report = renewing.applier.full(full(dataclasses.replace(RED, peers=(RED.peers[1], renewal().peer)), version=20))
    assert report is not None
    assert (report.drift, report.conditions) == ([], [])
    assert renewing.keys() == {"n-key", "b-key"}
    assert allowed(renewing, "n") == {"10.9.0.2/32"}
    assert renewing.applier.hand_over() == []


def test_a_stale_full_state_ends_no_key_for_good(renewing: Host) -> None:
    assert renewing.applier.full(full(RED, version=9)) is None
    assert allowed(renewing, "n") == {"10.9.0.2/32"}


def test_who_ended_meanwhile_leaves_nothing_behind(renewing: Host) -> None:
    report = renewing.applier.changes([RemovePeers(21, ("n",))])
    assert {gone.connection for gone in report.gone} == {"a", "n"}
    assert renewing.keys() == {"b-key"}
    assert renewing.applier.hand_over() == []


def test_a_newer_connection_of_the_device_replaces_the_one_that_waits(renewing: Host) -> None:
    assert renewing.applier.changes([add("m", 21, replaces=("n",), address=2)]).answers == [""]
    assert renewing.keys() == {"m-key", "b-key"}
    assert allowed(renewing, "m") == {"10.9.0.2/32"}


@pytest.mark.parametrize(
    "changes", [{"replaces": ()}, {"replaces": ("gone",)}, {"hand_over": 0.0}, {"server": "green"}], ids=str
)
def test_what_continues_nothing_here_is_added_as_ever(host: Host, changes: dict[str, Any]) -> None:
    host.applier.full(full(RED))
    host.applier.changes([dataclasses.replace(renewal(), **changes)])
    assert host.applier.hand_over() == []
    assert ({"n-key"} <= host.keys()) == ("server" not in changes)
    if "server" not in changes:
        assert allowed(host, "n") == {"10.9.0.2/32"}


@pytest.mark.parametrize("broken", [True, False])
def test_what_wireguard_refuses_is_said(host: Host, broken: bool) -> None:
    host.applier.full(full(RED))
    if broken:
        host.wireguard.broken.add("wgs1")
    (answer,) = host.applier.changes([renewal()]).answers
    assert bool(answer) == broken


STEPS = ("renew", "again", "shake", "look", "later", "end new", "end old", "state", "repair")


@given(st.lists(st.sampled_from(STEPS), max_size=12))
def test_in_whatever_order_the_address_is_one_open_connections_and_nobody_unknown_is_left(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    host = Host(tmp_path_factory.mktemp("keys"))
    host.applier.full(full(RED))
    message, done = renewal(), set[str]()
    for step in steps:
        done.add(step)
        match step:
            case "renew":
                host.applier.changes([message])
            case "again":
                host.applier.changes([message, message])
            case "shake" if {"n-key"} <= host.keys():
                host.wireguard.shake_hands("wgs1", "n-key", 1)
            case "look":
                host.applier.hand_over()
            case "later":
                host.steady += 6
            case "end new":
                host.applier.changes([RemovePeers(21, ("n",))])
            case "end old":
                host.applier.changes([RemovePeers(21, ("a",))])
            case "state":
                host.applier.full(full(RED, version=10))
            case "repair":
                host.applier.repair(tunnels=True)
    host.steady += 100
    host.applier.hand_over()
    owners = [
        key for key in sorted(host.keys()) if "10.9.0.2/32" in host.wireguard.devices["wgs1"].peers[key].allowed_ips
    ]
    assert len(owners) <= 1
    asked = bool(done & {"renew", "again"})
    if "end new" in done:
        assert not {"n-key"} & host.keys()
    elif asked:
        assert owners == ["n-key"]
    assert host.keys() == {f"{held.peer.connection}-key" for held in host.desired.held()}
