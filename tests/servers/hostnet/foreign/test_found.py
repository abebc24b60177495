"""What other firewalls do to our packets, and what is said of it."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from servers.hostnet.foreign.manager import Foreign
from servers.hostnet.state import Dns, Forward, Peer
from tests.servers.hostnet.foreign.machines import SIX, Machine, kinds

from .tables import (
    DOCKER,
    DOCKER_28,
    FIREWALLD,
    HARMLESS,
    LIBVIRT,
    ONE,
    OWN,
    PLAIN,
    UFW,
    WEB_PORT,
    commands_in,
    load,
)

pytestmark = pytest.mark.host


def test_a_machine_without_other_firewalls_is_fine(machine: Machine) -> None:
    assert machine.check() == []
    load(machine.where, "table inet wgvpn { chain f { type filter hook forward priority 0; policy drop; }; }")
    assert machine.check() == []  # our own table is no foreign one


@pytest.mark.parametrize("table", [HARMLESS, LIBVIRT], ids=["harmless", "libvirt"])
def test_rules_that_are_narrowed_to_others_do_not_count(machine: Machine, table: str) -> None:
    load(machine.where, table)
    assert machine.check(ONE, PLAIN) == []


@pytest.mark.parametrize("table", [DOCKER, DOCKER_28], ids=["27", "28"])
def test_docker_drops_both_ways_and_its_own_commands_help(machine: Machine, table: str) -> None:
    load(machine.where, table)
    (finding,) = machine.check()
    assert kinds([finding]) == [
        "ip filter FORWARD (Docker) drops packets from clients (wgs1) and packets to clients (wgs1)"
    ]
    commands = commands_in(finding)
    assert commands == ["iptables -I DOCKER-USER -i wgs+ -j ACCEPT", "iptables -I DOCKER-USER -o wgs+ -j ACCEPT"]
    for command in commands:
        assert len(machine.check()) == 1
        machine.where.run(*command.split())
    assert machine.check() == []


def test_docker_for_ipv6_is_its_own_table(machine: Machine) -> None:
    machine.where.run("ip6tables-nft-restore", text=DOCKER)
    assert machine.check(dataclasses.replace(ONE, addresses=("10.9.0.1/24",))) == []
    (finding,) = machine.check(SIX)
    for command in commands_in(finding):
        assert command.startswith("ip6tables -I DOCKER-USER ")
        machine.where.run(*command.split())
    assert machine.check(SIX) == []


def test_ufw_is_told_of_by_its_own_commands(machine: Machine) -> None:
    load(machine.where, UFW)
    forward, incoming = machine.check()
    # Replies pass by ufw's own rule for established connections.
    assert kinds([forward]) == ["ip filter FORWARD (ufw) drops packets from clients (wgs1)"]
    assert commands_in(forward) == ["ufw route allow in on wgs1"]
    assert "drops WireGuard packets (UDP port 51820) and what clients ask of the gateway (wgs1)" in incoming
    assert commands_in(incoming) == ["ufw allow 51820/udp", "ufw allow in on wgs1"]
    assert commands_in(machine.check(PLAIN)[0])[1] == "ufw route allow out on wgs1"


def test_what_those_commands_do_to_ufws_chains_is_enough(machine: Machine) -> None:
    load(machine.where, UFW)
    for rule in (
        "ufw-user-forward -i wgs1",
        "ufw-user-input -i wgs1",
        "ufw-user-input -p udp --dport 51820",
    ):
        assert machine.check() != []
        machine.where.run("iptables", "-A", *rule.split(), "-j", "ACCEPT")
    assert machine.check() == []
    assert len(machine.check(PLAIN)) == 1
    machine.where.run("iptables", "-A", "ufw-user-forward", "-o", "wgs1", "-j", "ACCEPT")
    assert machine.check(PLAIN) == []


def test_without_iptables_its_own_matches_are_doubtful(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """nft shows them by name only. Then nothing is said to be fine that may not be."""
    load(machine.where, UFW)
    machine.where.run("iptables", "-I", "FORWARD", "-i", "wgs1", "-j", "ACCEPT")
    assert kinds(machine.check())[0].startswith("ip filter INPUT")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert kinds(machine.check())[0] == "ip filter FORWARD (ufw) may drop packets to clients (wgs1)"


def test_tables_of_the_old_iptables_do_not_explain_those_of_the_new(machine: Machine) -> None:
    load(machine.where, UFW)

    def run(command: Sequence[str], text: str) -> str:
        said = machine.run(command, text)
        return said.replace("(nf_tables)", "(legacy)") if "save" in command[0] else said

    found = [each.text for each in Foreign(run, Path(f"/proc/{machine.where.pid}/net")).check([ONE], WEB_PORT)]
    assert "may drop packets from clients (wgs1) and packets to clients (wgs1)" in found[0]


def test_firewalld_is_told_of_by_its_own_commands(machine: Machine) -> None:
    load(machine.where, FIREWALLD)
    forward, incoming = machine.check()
    assert kinds([forward]) == ["inet firewalld filter_FORWARD (firewalld) drops packets from clients (wgs1)"]
    zone = "firewall-cmd --permanent --zone=trusted --add-interface=wgs1"
    assert commands_in(forward) == [zone, "firewall-cmd --reload"]
    assert commands_in(incoming)[:2] == [zone, "firewall-cmd --permanent --add-port=51820/udp"]
    # What firewalld makes of these.
    for chain in ("IN", "FWD"):
        load(machine.where, f"table inet firewalld {{ chain filter_{chain}_trusted {{ accept; }}; }}")
        hook = {"IN": "INPUT", "FWD": "FORWARD"}[chain]
        rule = f'insert rule inet firewalld filter_{hook}_ZONES iifname "wgs1" goto filter_{chain}_trusted'
        machine.where.run("nft", rule)
    machine.where.run("nft", "add rule inet firewalld filter_IN_public_allow udp dport 51820 accept")
    assert machine.check() == []
    assert "packets to clients (wgs1, IPv4)" in kinds(machine.check(PLAIN))[0]


def test_an_own_table_is_opened_by_the_very_rules_that_are_named(machine: Machine) -> None:
    load(machine.where, OWN)
    forward, incoming = machine.check()
    assert commands_in(forward) == ["nft insert rule inet filter forward 'iifname \"wgs*\" accept'"]
    assert "nft insert rule inet filter input 'udp dport 51820 accept'" in commands_in(incoming)
    for command in commands_in(forward) + commands_in(incoming):
        assert machine.check() != []
        machine.where.run("sh", "-c", command)
    assert machine.check() == []


def test_a_resolver_and_forwards_need_more(machine: Machine) -> None:
    load(machine.where, OWN)
    machine.apply()
    assert machine.check() == []
    resolver = dataclasses.replace(ONE, dns=Dns("vpn", (), "", ()))
    assert "udp dport 53 accept" in machine.check(resolver)[0]
    peer = Peer("a", 1, "k", ("10.9.0.5/32",), forwards=(Forward("tcp", 80, 80, 80),))
    assert "packets to clients" in machine.check(dataclasses.replace(ONE, peers=(peer,)))[0]


@pytest.mark.parametrize("family", ["ip", "ip6", "inet"])
def test_only_the_ip_versions_that_a_chain_sees_and_a_server_has_count(machine: Machine, family: str) -> None:
    load(machine.where, f"table {family} t {{ chain c {{ type filter hook forward priority 5; policy drop; }}; }}")
    four = dataclasses.replace(ONE, addresses=("10.9.0.1/24",))
    assert bool(machine.check(four)) == (family != "ip6")
    assert bool(machine.check(SIX)) == (family != "ip")
