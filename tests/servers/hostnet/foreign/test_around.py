"""The tables of the old iptables, which nft does not see, and the ways out of a host."""

from __future__ import annotations

import ipaddress
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from servers.hostnet.foreign import iptables_legacy
from servers.hostnet.foreign.manager import Foreign
from servers.hostnet.foreign.packets import Exits, cases
from servers.hostnet.state import routing_table
from servers.hostnet.state.routing_table import TableRoute
from tests.lab import Namespace
from tests.servers.hostnet.foreign.machines import Machine

from .tables import (
    ONE,
    WEB_PORT,
    commands_in,
)

pytestmark = pytest.mark.host


# The old iptables, which nft does not see

LEGACY = ":INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n-A FORWARD -i docker0 -j ACCEPT\n"


def legacy_findings(saved: str) -> list[str]:
    exits = Exits([TableRoute(ipaddress.ip_network("0.0.0.0/0"), 0, "wan")])
    return iptables_legacy.findings("iptables-legacy", saved, cases([ONE], WEB_PORT, exits))


def test_legacy_tables_that_drop_are_told_of() -> None:
    (finding,) = legacy_findings(LEGACY)
    commands = [f"iptables-legacy -I FORWARD -{side} wgs+ -j ACCEPT" for side in "io"]
    assert commands_in(finding) == commands
    first, second = (command.replace("iptables-legacy -I", "-A") for command in commands)
    assert commands_in(legacy_findings(f"{LEGACY}{first}\n")[0]) == commands[1:]
    assert legacy_findings(f"{LEGACY}{first}\n{second}\n") == []
    assert legacy_findings(LEGACY.replace("DROP", "ACCEPT")) == []
    assert len(legacy_findings("-A INPUT -p tcp --dport 22 -j ACCEPT\n-A INPUT -j REJECT --reject-with x\n")) == 1


def test_real_legacy_tables_are_told_of_and_left_alone() -> None:
    """In a namespace of its own: once made, such tables stay."""
    where = Namespace("legacy")
    try:
        where.ip("link", "add", "wan", "type", "bridge")
        where.ip("link", "set", "wan", "up")
        where.ip("route", "add", "default", "dev", "wan")
        where.run("iptables-legacy", "-P", "FORWARD", "DROP")
        machine = Machine(where, [])
        before = where.run("iptables-legacy", "-S").stdout
        (finding,) = machine.apply()
        assert machine.apply(insert_rules=False) == [finding]
        assert where.run("iptables-legacy", "-S").stdout == before
        for command in commands_in(finding):
            assert machine.check() != []
            where.run(*command.split())
        assert machine.check() == []
    finally:
        where.close()


def test_legacy_tables_are_asked_for_only_where_the_kernel_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "route").write_text("Iface ...\nwan 00000000 FE6433C6 0003 0 0 0 00000000 0 0 0\n")
    asked = []

    def run(command: Sequence[str], text: str) -> str:
        asked.append(command[0])
        return LEGACY if command[0] == "iptables-legacy-save" else '{"nftables": []}'

    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/sbin/{name}")
    assert Foreign(run, tmp_path).check([ONE], WEB_PORT) == []
    assert asked == ["nft"]
    (tmp_path / "ip_tables_names").write_text("nat\nfilter\n")
    assert len(Foreign(run, tmp_path).check([ONE], WEB_PORT)) == 1
    assert asked == ["nft", "nft", "iptables-legacy-save"]


# Ways out


def test_the_longest_prefix_leads_out_and_rejecting_routes_do_not(machine: Machine) -> None:
    machine.where.ip("route", "add", "unreachable", "203.0.113.0/24")
    exits = Exits(routing_table.read(Path(f"/proc/{machine.where.pid}/net")))
    ways = {"10.50.0.9": "lan50", "44.127.0.1": "wan", "198.51.100.7": "wan", "2a00::1": "wan"}
    assert {text: exits.leading_to(ipaddress.ip_address(text)) for text in ways} == ways
    machine.where.ip("route", "del", "unreachable", "203.0.113.0/24")
    assert Exits([]).leading_to(ipaddress.ip_address("10.0.0.1")) == ""
