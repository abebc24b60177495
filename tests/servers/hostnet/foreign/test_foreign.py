"""Other firewalls as docker, ufw, firewalld and administrators set them up: what is said of them, and what is changed.

Their rules are loaded by the real nft and iptables, into a namespace in which nothing is sent.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from servers.hostnet.firewall.table import FirewallError
from servers.hostnet.foreign import iptables_legacy, manager
from servers.hostnet.foreign.advice import Finding
from servers.hostnet.foreign.evaluate import Ruleset, Verdict
from servers.hostnet.foreign.manager import Foreign
from servers.hostnet.foreign.match import Packet
from servers.hostnet.foreign.packets import Case, Exits, cases
from servers.hostnet.state import Dns, Forward, HostCondition, HostState, Interface, Peer, routing_table
from servers.hostnet.state.routing_table import TableRoute
from tests.lab import HANGING, Namespace
from tests.servers.hostnet.fakes import state_of

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
    listing,
    load,
)

pytestmark = pytest.mark.host

LOOK = manager.examine
DROP = {"drop": None}
SIX = dataclasses.replace(ONE, addresses=("fd01::1/64",))


def desired(*interfaces: Interface, insert_rules: bool = True) -> HostState:
    return state_of(*interfaces, web_port=WEB_PORT, open_foreign_firewalls=insert_rules)


def told(tool: Foreign, *interfaces: Interface, insert_rules: bool = True) -> list[HostCondition]:
    """What it reports of a full state."""
    tool.apply(desired(*interfaces, insert_rules=insert_rules))
    return tool.conditions()


@dataclasses.dataclass
class Machine:
    """A namespace with a way out over ``wan``, and ``foreign`` as it works there; ``asked`` is what it ran."""

    where: Namespace
    asked: list[list[str]]

    @property
    def foreign(self) -> Foreign:
        return Foreign(self.run, Path(f"/proc/{self.where.pid}/net"))

    def run(self, command: Sequence[str], text: str) -> str:
        self.asked.append([*command])
        done = self.where.run(*command, text=text, check=False)
        if done.returncode:
            raise FirewallError(done.stderr)
        return done.stdout

    def check(self, *interfaces: Interface) -> list[str]:
        return [condition.text for condition in self.foreign.check(interfaces or [ONE], WEB_PORT)]

    def apply(self, *interfaces: Interface, insert_rules: bool = True) -> list[str]:
        return [condition.text for condition in told(self.foreign, *(interfaces or [ONE]), insert_rules=insert_rules)]

    def preview(self, *interfaces: Interface, insert_rules: bool = True) -> list[str]:
        return self.foreign.preview(desired(*(interfaces or [ONE]), insert_rules=insert_rules))

    def rules(self) -> str:
        return listing(self.where)


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    where = Namespace("foreign")
    try:
        for name, address in (("wan", "198.51.100.1/24"), ("lan50", "10.50.0.1/24")):
            where.ip("link", "add", name, "type", "bridge")
            where.ip("addr", "add", address, "dev", name)
            where.ip("link", "set", name, "up")
        where.ip("addr", "add", "2001:db8:1::1/64", "dev", "wan", "nodad")
        where.ip("route", "add", "default", "via", "198.51.100.254")
        where.ip("route", "add", "default", "via", "2001:db8:1::fe")
        yield where
    finally:
        where.close()


@pytest.fixture
def machine(namespace: Namespace) -> Machine:
    namespace.run("nft", "flush", "ruleset")
    return Machine(namespace, [])


def kinds(findings: Sequence[str]) -> list[str]:
    """The chain and how it treats us, without the commands."""
    return [finding.partition(". To let")[0] for finding in findings]


# What is found


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


# What one rule does to one packet

CLIENT, SOMEBODY = ipaddress.ip_address("10.9.0.2"), ipaddress.ip_address("44.127.0.1")
OUT = Packet("forward", "wgs1", "wan", CLIENT, SOMEBODY, "tcp", 443, 40000)
BACK = Packet("forward", "wan", "wgs1", SOMEBODY, CLIENT, "tcp", 40000, 443, reply=True)
OUT6 = dataclasses.replace(OUT, source=ipaddress.ip_address("fd01::2"), destination=ipaddress.ip_address("2a00::1"))
PASSES, DROPS, EITHER = Verdict.ACCEPT, Verdict.DROP, Verdict.ACCEPT | Verdict.DROP

FATES = {
    'iifname "wgs*" drop': DROPS,
    'iifname "wgs2" drop': PASSES,
    'iifname != "wan" drop': DROPS,
    'iifname { "wgs1", "lan*" } drop': DROPS,
    'oifname { "lan50", "lan51" } drop': PASSES,
    "ip saddr 10.9.0.0/24 drop": DROPS,
    "ip saddr != 10.9.0.0/24 drop": PASSES,
    "ip saddr 10.9.0.3-10.9.0.9 drop": PASSES,
    "ip daddr { 44.0.0.0/8, 10.0.0.0/8 } drop": DROPS,
    "ip saddr @some drop": DROPS,
    "ip saddr != @some drop": PASSES,
    "ip6 saddr != fd02::/64 drop": PASSES,
    "meta nfproto ipv6 drop": PASSES,
    "meta nfproto ipv4 drop": DROPS,
    "ct state new drop": DROPS,
    "ct state established,related drop": PASSES,
    "ct state != established drop": DROPS,
    "ct direction reply drop": PASSES,
    "ct status dnat drop": PASSES,
    "tcp dport 443 drop": DROPS,
    "tcp dport != 443 drop": PASSES,
    "tcp dport 1-1023 drop": DROPS,
    "tcp dport { 80, 443 } reject": DROPS,
    "tcp dport >= 1024 drop": PASSES,
    "th dport 443 drop": DROPS,
    "udp dport 443 drop": PASSES,
    "udp dport != 443 drop": PASSES,
    "meta l4proto tcp drop": DROPS,
    "meta l4proto { udp, icmp } drop": PASSES,
    "ip protocol tcp drop": DROPS,
    "icmp type echo-request drop": PASSES,
    "tcp flags syn / fin,syn,rst,ack drop": DROPS,
    "tcp flags != syn / fin,syn,rst,ack drop": PASSES,
    "counter log drop": DROPS,
    "meta mark 0x1 drop": EITHER,
    "limit rate 5/second drop": EITHER,
    "limit rate 5/second accept": PASSES,
    "meta mark 0x1 jump dropping": EITHER,
    "fib daddr type local drop": PASSES,
    "fib saddr . iif oif missing drop": EITHER,
    "synproxy": EITHER,
    "udp sport . udp dport != { 1 . 2 } drop": PASSES,
    "tcp sport . tcp dport != { 1 . 2 } drop": DROPS,
    "jump dropping": DROPS,
    "goto dropping": DROPS,
    "jump returning": PASSES,
    'iifname vmap { "wgs*" : drop, "wan" : accept }': DROPS,
    'iifname vmap { "wan" : drop }': PASSES,
    "ip saddr . tcp dport { 10.9.0.2 . 443 } drop": DROPS,
    "ip saddr . tcp dport { 10.9.0.2 . 80 } drop": PASSES,
    "ip saddr . tcp dport vmap { 10.9.0.0/24 . 400-500 : jump dropping }": DROPS,
    "ct state vmap { invalid : drop, new : jump dropping, established : accept }": DROPS,
    "ip saddr . meta mark { 10.9.0.2 . 1 } drop": EITHER,
    "ip saddr . meta mark { 10.9.0.3 . 1 } drop": PASSES,
    "add @seen { ip saddr } drop": DROPS,
    "return": PASSES,
    "accept": PASSES,
}
AROUND = """table inet t {{
	set some {{ type ipv4_addr; flags interval; elements = {{ 10.9.0.0/25, 192.0.2.1 }}; }}
	set seen {{ type ipv4_addr; flags dynamic; size 10; }}
	chain dropping {{ drop; }}
	chain returning {{ return; }}
	chain c {{ type filter hook forward priority 5; policy {policy}; {rule}; {last}; }}
}}"""


@pytest.mark.parametrize("rule", [*FATES])
def test_a_new_packet_from_a_client(machine: Machine, rule: str) -> None:
    load(machine.where, AROUND.format(policy="accept", rule=rule, last="accept"))
    assert fate(machine, OUT) == FATES[rule]


def fate(machine: Machine, packet: Packet) -> Verdict:
    ruleset = Ruleset.parse(machine.where.run("nft", "-j", "list", "ruleset").stdout)
    (chain,) = ruleset.bases("forward")
    return ruleset.fate(chain, packet)


@pytest.mark.parametrize(
    ("rule", "packet", "expected"),
    [
        ("ct state established,related accept", BACK, PASSES),
        ("ct direction reply accept", BACK, PASSES),
        ('oifname "wgs*" accept', BACK, PASSES),
        ('iifname "wgs*" accept', BACK, DROPS),
        ("tcp flags syn / fin,syn,rst,ack accept", BACK, DROPS),
        ("jump returning", OUT, DROPS),
        ("goto returning", OUT, DROPS),
        ("meta mark 1 accept", OUT, EITHER),
        ("ip6 saddr fd01::/64 accept", OUT6, PASSES),
        ("ip6 daddr 2a00::1 accept", OUT6, PASSES),
        ("ip saddr 10.9.0.0/24 accept", OUT6, DROPS),
        ("ct status dnat accept", dataclasses.replace(BACK, reply=False, dnat=True), PASSES),
        ('iifname "wgs*" counter accept', OUT, PASSES),
        ('iifname "wgs*" meta mark 1 accept', OUT, EITHER),
    ],
)
def test_a_chain_that_drops_the_rest(machine: Machine, rule: str, packet: Packet, expected: Verdict) -> None:
    load(machine.where, AROUND.format(policy="drop", rule=rule, last="counter"))
    assert fate(machine, packet) == expected


MODULES = {
    "-m conntrack --ctstate NEW": DROPS,
    "-m conntrack --ctstate RELATED,ESTABLISHED": PASSES,
    "-m conntrack ! --ctstate NEW": PASSES,
    "-m state --state INVALID": PASSES,
    "-m addrtype --dst-type LOCAL": PASSES,
    "-m addrtype ! --dst-type LOCAL": DROPS,
    "-m pkttype --pkt-type broadcast": PASSES,
    "-p tcp -m multiport --dports 80,400:500": DROPS,
    "-p tcp -m multiport --dports 80,8080": PASSES,
    "-p udp -m multiport --dports 443": PASSES,
    "-p tcp -m tcp --dport 443": DROPS,
    "-p icmp -m icmp --icmp-type 8": PASSES,
    "-m physdev --physdev-is-bridged": PASSES,
    "-m mark --mark 1": EITHER,
    "-m recent --name x --rcheck": EITHER,
    '-m comment --comment "it is -m conntrack --ctstate INVALID"': DROPS,
    "-s 10.9.0.0/24 -i wgs+": DROPS,
    "! -i wgs+": PASSES,
}


@pytest.mark.parametrize("match", [*MODULES])
@pytest.mark.parametrize("target", ["DROP", "REJECT"])
def test_matches_of_iptables(machine: Machine, match: str, target: str) -> None:
    log = '-A FORWARD -j LOG --log-prefix "x "'
    rules = f"*filter\n:FORWARD ACCEPT [0:0]\n{log}\n-A FORWARD {match} -j {target}\nCOMMIT\n"
    machine.where.run("iptables-nft-restore", text=rules)
    ruleset = machine.foreign._read()
    assert ruleset.fate(ruleset.bases("forward")[0], OUT) == MODULES[match]


# Letting packets pass


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


def test_a_rule_of_an_unknown_form_may_drop() -> None:
    chain = {"family": "inet", "table": "t", "name": "c", "type": "filter", "hook": "forward", "policy": "accept"}
    for strange in ({"match": {"weird": 1}}, {"jump": {"target": "nowhere"}}, {"vmap": {"key": 1}}, {"hop": 1}):
        rule = {"family": "inet", "table": "t", "chain": "c", "handle": 1, "expr": [strange]}
        ruleset = Ruleset.parse(json.dumps({"nftables": [{"metainfo": {}}, {"chain": chain}, {"rule": rule}]}))
        assert ruleset.fate(ruleset.bases("forward")[0], OUT) == EITHER


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


@pytest.mark.parametrize("among", [False, True])
def test_ten_thousand_rules_for_single_addresses_are_looked_at_in_good_time(among: bool) -> None:
    chain = {"family": "ip", "table": "t", "name": "c", "type": "filter", "hook": "forward", "policy": "accept"}
    rules = []
    for number in range(10_000):
        address = "10.50.0.1" if among and number == 9_999 else f"100.{number // 256}.{number % 256}.1"
        match = {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": address}
        rules.append({"family": "ip", "table": "t", "chain": "c", "handle": number, "expr": [{"match": match}, DROP]})
    text = json.dumps({"nftables": [{"chain": chain}, *({"rule": rule} for rule in rules)]})
    servers = [dataclasses.replace(ONE, name=f"wgs{n}", port=51820 + n) for n in range(20)]
    exits = Exits([TableRoute(ipaddress.ip_network("0.0.0.0/0"), 0, "wan")])
    began = time.process_time()
    assert len(manager.examine(Ruleset.parse(text), cases(servers, WEB_PORT, exits))) == among
    assert time.process_time() - began < HANGING  # it takes a fraction of a second


def test_a_large_list_of_blocked_addresses_is_looked_at_in_good_time() -> None:
    """As crowdsec and the like have it: it must not hold up the dispatcher."""
    blocked = [f"{100 + n // 65536}.{n // 256 % 256}.{n % 256}.1" for n in range(20_000)]
    chain = {"family": "inet", "table": "t", "name": "c", "type": "filter", "hook": "forward", "policy": "accept"}
    match = {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "@b"}
    rule = {"family": "inet", "table": "t", "chain": "c", "handle": 1, "expr": [{"match": match}, {"drop": None}]}
    blocked_set = {"family": "inet", "table": "t", "name": "b", "type": "ipv4_addr", "elem": blocked}
    text = json.dumps({"nftables": [{"chain": chain}, {"set": blocked_set}, {"rule": rule}]})
    servers = [dataclasses.replace(ONE, name=f"wgs{n}", port=51820 + n) for n in range(5)]
    exits = Exits([TableRoute(ipaddress.ip_network("0.0.0.0/0"), 0, "wan")])
    began = time.process_time()
    assert manager.examine(Ruleset.parse(text), cases(servers, WEB_PORT, exits)) == []
    assert time.process_time() - began < HANGING  # it takes a fraction of a second
