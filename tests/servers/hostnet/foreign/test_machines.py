"""What other firewalls do to packets between machines, and what is said of it."""

from __future__ import annotations

import dataclasses

import pytest

from servers.hostnet.state import Forward, HostState, Link, Mesh, MeshPeer, Remote, Route
from tests.servers.hostnet.foreign.machines import Machine, desired, kinds

from .tables import DOCKER, FIREWALLD, HARMLESS, ONE, OWN, UFW, commands_in, load

pytestmark = pytest.mark.host

PEER = MeshPeer("b", "k", ("198.51.100.7:51800",), ("fd5c::2/128",))
MESH = Mesh(("fd5c::1/128",), 51800, 0, (PEER,), serves=(9791,))


FOUR = dataclasses.replace(
    MESH, addresses=("10.200.0.1/32",), peers=(dataclasses.replace(PEER, addresses=("10.200.0.2/32",)),)
)


def among_machines(mesh: Mesh = MESH, *remotes: Remote, insert_rules: bool = False) -> HostState:
    return dataclasses.replace(desired(ONE, insert_rules=insert_rules), mesh=mesh, remotes=remotes)


def found(machine: Machine, state: HostState) -> list[str]:
    tool = machine.foreign
    tool.apply(state)
    return [condition.text for condition in tool.conditions()]


@pytest.mark.parametrize("table", [UFW, FIREWALLD, OWN], ids=["ufw", "firewalld", "own"])
def test_whoever_drops_the_rest_drops_the_mesh_too(machine: Machine, table: str) -> None:
    load(machine.where, table)
    said = " ".join(found(machine, among_machines(FOUR)))
    assert "WireGuard packets (UDP port 51800, 51820" in said
    assert "what other machines ask of this one (wgm0" in said
    assert "other machines" not in " ".join(found(machine, dataclasses.replace(among_machines(), mesh=None)))


@pytest.mark.parametrize("table", [UFW, FIREWALLD, OWN, DOCKER], ids=["ufw", "firewalld", "own", "docker"])
def test_opened_for_us_it_lets_them_pass_and_is_as_before_once_it_is_not(machine: Machine, table: str) -> None:
    load(machine.where, table)
    remote = Remote("c", 1, 1, ONE.server, "b", ("10.9.0.77/32",), forwards=(Forward("tcp", 80, 80, 80),))
    linked = Link("other", "wgs2", ("10.77.0.0/24",), offered=(Route("10.50.0.0/24", True, "", ""),))
    state = among_machines(MESH, remote)
    state = dataclasses.replace(state, interfaces=(dataclasses.replace(ONE, inter_client=True, links=(linked,)),))
    said = found(machine, state)
    assert "by way of this one (wgm0" in " ".join(said)
    assert found(machine, dataclasses.replace(state, open_foreign_firewalls=True)) == []
    assert found(machine, state) == said


def test_ufw_is_told_of_the_mesh_by_its_own_commands(machine: Machine) -> None:
    load(machine.where, UFW)
    incoming = found(machine, among_machines())[-1]
    assert kinds([incoming]) == [
        "ip filter INPUT (ufw) drops WireGuard packets (UDP port 51800, 51820) and what clients ask of the gateway "
        "(wgs1)"
    ]
    assert "ufw allow 51800/udp" in commands_in(incoming)
    assert "ufw allow in on wgm0" in commands_in(found(machine, among_machines(FOUR))[-1])


def test_the_commands_that_are_named_let_the_mesh_pass(machine: Machine) -> None:
    load(machine.where, OWN)
    for finding in found(machine, among_machines()):
        for command in commands_in(finding):
            machine.where.run("sh", "-c", command)
    assert found(machine, among_machines()) == []


def test_a_firewall_that_knows_the_other_machines_addresses_is_fine(machine: Machine) -> None:
    """It lets nobody else in, and need not."""
    others = "ip saddr 198.51.100.7 udp dport 51800 accept; udp dport 51820 accept"
    chain = f"type filter hook input priority 5; policy drop; {others}; iifname { {'wgs*', 'wgm*'} } accept;"
    load(machine.where, f"table inet t {{ chain c {{ {chain.replace(chr(39), chr(34))} }}; }}")
    assert found(machine, among_machines()) == []
    named = dataclasses.replace(MESH, peers=(dataclasses.replace(PEER, endpoints=("b.example.com:51800",)),))
    assert "UDP port 51800" in " ".join(found(machine, among_machines(named)))


def test_what_does_not_concern_the_mesh_is_none_of_it(machine: Machine) -> None:
    load(machine.where, HARMLESS)
    assert found(machine, among_machines()) == []
