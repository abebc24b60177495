"""Letting our packets pass through other firewalls, and taking that back."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from servers.hostnet.firewall.table import FirewallError
from servers.hostnet.foreign import manager
from servers.hostnet.foreign.advice import Finding
from servers.hostnet.foreign.evaluate import Ruleset
from servers.hostnet.foreign.manager import Foreign
from servers.hostnet.foreign.packets import Case
from tests.servers.hostnet.foreign.machines import LOOK, Machine, desired, kinds, told

from .tables import (
    DOCKER,
    FIREWALLD,
    HARMLESS,
    ONE,
    OWN,
    PLAIN,
    UFW,
    WEB_PORT,
    load,
)

pytestmark = pytest.mark.host


def put_first(line: str) -> int:
    """How many rules a line of a preview speaks of."""
    found = re.fullmatch(r"(?:ip|ip6|inet) \S+ \S+: put (\d+) of our rules first", line)
    assert found, line
    return int(found[1])


@pytest.mark.parametrize(
    "table", [DOCKER, UFW, FIREWALLD, OWN, HARMLESS], ids=["docker", "ufw", "firewalld", "own", "-"]
)
def test_only_our_rules_are_added_and_all_are_taken_out_again(machine: Machine, table: str) -> None:
    load(machine.where, table)
    before = machine.rules()
    in_the_way = machine.check(PLAIN)
    intended = machine.preview(PLAIN)
    assert machine.rules() == before
    assert machine.apply(PLAIN) == []
    assert machine.check(PLAIN) == []
    assert machine.preview(PLAIN) == []
    added = [line for line in machine.rules().splitlines() if 'comment "wgvpn"' in line]
    assert bool(added) == bool(in_the_way) == bool(intended)
    assert sum(map(put_first, intended)) == len(added)
    assert [line for line in machine.rules().splitlines() if line not in added] == before.splitlines()
    out = [line.replace(": put", ": take out").replace("our rules first", "our rules") for line in intended]
    assert sorted(machine.preview(PLAIN, insert_rules=False)) == sorted(out)
    assert machine.apply(PLAIN, insert_rules=False) == in_the_way
    assert machine.preview(PLAIN, insert_rules=False) == []
    assert machine.rules() == before
    machine.apply(PLAIN)
    machine.foreign.remove()
    assert machine.rules() == before


def test_doing_it_again_does_nothing_and_reads_once(machine: Machine) -> None:
    load(machine.where, OWN)
    machine.apply()
    after = machine.rules()
    machine.asked.clear()
    assert machine.apply() == []
    asked = [["--terse", "list", "chains"], ["list", "table", "inet", "filter"]]
    assert [command[3:] for command in machine.asked] == asked
    assert machine.rules() == after


def test_what_did_not_change_is_not_worked_out_again(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    load(machine.where, OWN)
    looked = []

    def examine(ruleset: Ruleset, needed: Sequence[Case]) -> list[Finding]:
        looked.append(1)
        return LOOK(ruleset, needed)

    monkeypatch.setattr(manager, "examine", examine)
    tool = machine.foreign
    for insert_rules, times in ((False, 1), (False, 1), (True, 1), (True, 2), (True, 2), (False, 2), (False, 2)):
        tool.apply(desired(ONE, insert_rules=insert_rules))
        # Our own table and counters are no change.
        load(machine.where, f"table inet wgvpn {{ chain c{len(looked)}{times} {{ }}; }}")
        assert len(looked) == times
    machine.where.run("nft", "add element inet filter blocked { 10.50.0.0/24 }")
    tool.apply(desired(ONE, insert_rules=False))
    tool.apply(desired(dataclasses.replace(ONE, port=51999), insert_rules=False))
    assert len(looked) == 4


def test_a_table_that_goes_while_we_look_is_no_error(machine: Machine) -> None:
    load(machine.where, OWN)
    load(machine.where, DOCKER)

    def run(command: Sequence[str], text: str) -> str:
        if "table" in command:
            machine.where.run("nft", "-f", "-", text="table inet filter\ndelete table inet filter\n")
        return machine.run(command, text)

    found = [each.text for each in Foreign(run, Path(f"/proc/{machine.where.pid}/net")).check([ONE], WEB_PORT)]
    assert len(found) == 1
    assert "Docker" in found[0]


@pytest.mark.parametrize("insert_rules", [True, False])
def test_a_handle_that_is_no_longer_ours_is_left_alone(machine: Machine, insert_rules: bool) -> None:
    """The other tool makes its table anew just between our looking and our taking out."""
    load(machine.where, OWN)
    machine.apply()
    anew = OWN.replace('iifname "lan50" oifname "wan" accept', "\n".join(["counter"] * 30))
    reads = 0

    def run(command: Sequence[str], text: str) -> str:
        nonlocal reads
        reads += "table" in command
        if reads == 2 and "table" in command:
            load(machine.where, "table inet filter\ndelete table inet filter\n" + anew)
        return machine.run(command, text)

    tool = Foreign(run, Path(f"/proc/{machine.where.pid}/net"))
    said = told(tool, dataclasses.replace(ONE, port=51999), insert_rules=insert_rules)
    assert any("just being changed by others" in each.text for each in said)
    after = machine.rules()
    machine.where.run("nft", "flush", "ruleset")
    load(machine.where, anew)
    assert [line for line in after.splitlines() if "wgvpn" not in line] == machine.rules().splitlines()


def test_a_reload_by_the_other_tool_is_made_good(machine: Machine) -> None:
    load(machine.where, DOCKER)
    machine.apply()
    load(machine.where, DOCKER)  # iptables-restore flushes the table
    assert "wgvpn" not in machine.rules()
    assert machine.apply() == []
    assert machine.rules().count('comment "wgvpn"') == 2


def test_a_drop_that_somebody_put_before_ours_is_overtaken(machine: Machine) -> None:
    load(machine.where, OWN)
    machine.apply()
    machine.where.run("nft", "insert rule inet filter forward counter drop")
    assert len(machine.check()) == 1
    assert machine.apply() == []
    assert machine.check() == []
    forward = machine.rules().partition("chain forward")[2]
    assert (forward.count("wgvpn"), forward.count("drop;"), forward.count("counter drop")) == (2, 1, 1)


def test_rules_follow_the_servers(machine: Machine) -> None:
    load(machine.where, OWN)
    machine.apply()
    assert "udp dport 51820" in machine.rules()
    machine.apply(dataclasses.replace(ONE, port=51999))
    assert "udp dport 51820" not in machine.rules()
    assert "udp dport 51999" in machine.rules()
    assert told(machine.foreign) == []  # no server is left
    assert "wgvpn" not in machine.rules()


def test_rules_of_others_with_other_comments_stay(machine: Machine) -> None:
    load(machine.where, OWN)
    machine.where.run("nft", 'add rule inet filter forward iifname "wgs*" accept comment "wgvpn by hand"')
    before = machine.rules()
    machine.apply(PLAIN)
    machine.apply(PLAIN, insert_rules=False)
    assert machine.rules() == before


def test_iptables_still_lists_its_tables_and_saves_them_with_ours(machine: Machine) -> None:
    load(machine.where, UFW)
    machine.apply(PLAIN)
    listed = machine.where.run("iptables", "-L", "-n", "-v")
    assert "incompatible" not in listed.stdout + listed.stderr
    assert listed.stdout.count("/* wgvpn */") == 4
    # Saved and restored, they are iptables' own rules; they are known again all the same.
    saved = machine.where.run("iptables-save").stdout
    machine.where.run("iptables-restore", text=saved)
    machine.asked.clear()
    assert machine.apply(PLAIN) == []
    assert ["nft", "-j", "-f", "-"] not in machine.asked
    machine.apply(PLAIN, insert_rules=False)
    assert "wgvpn" not in machine.where.run("iptables-save").stdout
    after = machine.rules()
    machine.where.run("nft", "flush", "ruleset")
    load(machine.where, UFW)
    assert sorted(after.splitlines()) == sorted(machine.rules().splitlines())  # iptables-save sorts the chains


def test_a_chain_that_refuses_does_not_hold_up_the_others(machine: Machine) -> None:
    load(machine.where, OWN)
    load(machine.where, DOCKER)

    def refusing(command: Sequence[str], text: str) -> str:
        if "-f" in command and '"filter", "chain": "FORWARD"' in text:
            raise FirewallError("nft: not today")
        return machine.run(command, text)

    tool = Foreign(refusing, Path(f"/proc/{machine.where.pid}/net"))
    (left,) = told(tool, ONE)
    assert left.text.startswith("ip filter FORWARD (Docker) drops")
    assert left.text.endswith("(our own rule was refused: nft: not today)")
    assert kinds(machine.check()) == kinds([left.text])


@pytest.mark.parametrize("answer", ["", "{}", '{"nftables": [{"chain": {}}]}', "[1]"])
def test_what_cannot_be_read_is_said_and_nothing_is_changed(answer: str) -> None:
    asked = []

    def run(command: Sequence[str], text: str) -> str:
        asked.append(command)
        return answer

    (said,) = told(Foreign(run), ONE)
    assert (said.code, said.severity) == ("foreign_unreadable", "warning")
    assert said.text.startswith("Other firewalls of this host cannot be looked at: nft: unreadable")
    assert len(asked) == 1
    assert Foreign(run).preview(desired(ONE)) == [f"warning foreign_unreadable: {said.text}"]
    assert Foreign(run).check([ONE], WEB_PORT) == [said]
