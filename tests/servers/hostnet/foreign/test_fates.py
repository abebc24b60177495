"""What rules of all kinds do to one packet."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import time

import pytest

from servers.hostnet.foreign import manager
from servers.hostnet.foreign.evaluate import Ruleset, Verdict
from servers.hostnet.foreign.match import Packet
from servers.hostnet.foreign.packets import Exits, cases
from servers.hostnet.state.routing_table import TableRoute
from tests.lab import HANGING
from tests.servers.hostnet.foreign.machines import Machine

from .tables import (
    ONE,
    WEB_PORT,
    load,
)

pytestmark = pytest.mark.host
DROP = {"drop": None}


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


def test_a_rule_of_an_unknown_form_may_drop() -> None:
    chain = {"family": "inet", "table": "t", "name": "c", "type": "filter", "hook": "forward", "policy": "accept"}
    for strange in ({"match": {"weird": 1}}, {"jump": {"target": "nowhere"}}, {"vmap": {"key": 1}}, {"hop": 1}):
        rule = {"family": "inet", "table": "t", "chain": "c", "handle": 1, "expr": [strange]}
        ruleset = Ruleset.parse(json.dumps({"nftables": [{"metainfo": {}}, {"chain": chain}, {"rule": rule}]}))
        assert ruleset.fate(ruleset.bases("forward")[0], OUT) == EITHER


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
