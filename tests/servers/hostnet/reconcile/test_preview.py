"""What a full state would do, said without doing it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from servers.hostnet.reconcile.apply import Applier
from servers.hostnet.reconcile.desired import Desired
from tests.servers.hostnet.reconcile.applied import BLUE, RED, A, B, Host, add, full, gateway


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
    assert (host.desired.version, host.desired.peers.changed()) == (10, [])
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
