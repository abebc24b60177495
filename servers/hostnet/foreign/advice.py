"""Findings about other firewalls in words, each with what an administrator of that firewall would type."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from servers.hostnet.state import MESH_PREFIX, PREFIX

from .evaluate import Chain
from .packets import Case, Kind, Statement


@dataclass(frozen=True, slots=True)
class Finding:
    """A base chain of another firewall, the cases that do not pass it, and those that may not."""

    chain: Chain
    dropped: tuple[Case, ...]
    doubtful: tuple[Case, ...]

    @property
    def cases(self) -> tuple[Case, ...]:
        return self.dropped + self.doubtful

    def __str__(self) -> str:
        owner = owner_of(self)
        known = {"docker": " (Docker)", "ufw": " (ufw)", "firewalld": " (firewalld)"}.get(owner, "")
        certain = {case.kind for case in self.dropped}
        sure = self._words(self.dropped)
        unsure = self._words([case for case in self.doubtful if case.kind not in certain])
        what = [f"drops {_listed(sure)}"] if sure else []
        what += [f"may drop {_listed(unsure)}"] if unsure else []
        return f"{self.chain}{known} {' and '.join(what)}. To let them pass: {' && '.join(advice(self))}"

    def _words(self, cases: Sequence[Case]) -> list[str]:
        found = []
        for kind in Kind:
            mine = [case for case in cases if case.kind is kind]
            if mine:
                ports = ", ".join(str(port) for port in _ports(mine))
                where = f"UDP port {ports}" if kind is Kind.PORT else ", ".join(_interfaces(mine, kind))
                versions = {case.packet.version for case in mine}
                only = f", IPv{min(versions)}" if self.chain.family == "inet" and len(versions) == 1 else ""
                found.append(f"{kind.value} ({where}{only})")
        return found


def rules(cases: Iterable[Case]) -> list[tuple[Statement, ...]]:
    """What matches these cases, each once."""
    found: list[tuple[Statement, ...]] = []
    for case in cases:
        if case.rule not in found:
            found.append(case.rule)
    return found


def owner_of(finding: Finding) -> str:
    """docker, ufw, firewalld, iptables or nft: whose commands change the chain."""
    chain = finding.chain
    if chain.table == "firewalld":
        return "firewalld"
    if chain.table == "filter" and chain.family in {"ip", "ip6"}:
        jumps = {s["jump"]["target"] for rule in chain.rules for s in rule.statements if "jump" in s}
        if chain.hook == "forward" and "DOCKER-USER" in jumps:
            return "docker"
        if any(name.startswith(("ufw-", "ufw6-")) for name in jumps):
            return "ufw"
        if chain.name in {"INPUT", "FORWARD"}:
            return "iptables"
    return "nft"


def advice(finding: Finding) -> list[str]:
    """Shell commands, to be carried out in this order."""
    match owner_of(finding):
        case "docker":
            return _iptables(finding, "DOCKER-USER")
        case "ufw":
            return _ufw(finding)
        case "firewalld":
            return _firewalld(finding)
        case "iptables":
            return _iptables(finding, finding.chain.name)
    return [f"nft insert rule {finding.chain} '{text(rule)} accept'" for rule in rules(finding.cases)]


def text(rule: Sequence[Statement]) -> str:
    """Statements of a ``Case`` as nft writes them."""
    return " ".join(_text(statement["match"]) for statement in rule)


def _text(match: Statement) -> str:
    left, right = match["left"], match["right"]
    if "payload" in left:
        return f"{left['payload']['protocol']} {left['payload']['field']} {right}"
    key = left["meta"]["key"]
    return f'{key} "{right}"' if key.endswith("name") else f"meta {key} {right}"


def _iptables(finding: Finding, chain: str) -> list[str]:
    command = "ip6tables" if finding.chain.family == "ip6" else "iptables"
    kinds = {case.kind for case in finding.cases}
    return [f"{command} -I {chain} {match} -j ACCEPT" for match in matches(kinds, _ports(finding.cases))]


def matches(kinds: Collection[Kind], ports: Iterable[int]) -> list[str]:
    """What iptables lets pass by, for these kinds that one of its chains stops; ``ports`` are WireGuard's."""
    sides = {
        f"-i {PREFIX}+": {Kind.OUT, Kind.GATEWAY},
        f"-o {PREFIX}+": {Kind.IN},
        f"-i {MESH_PREFIX}+": {Kind.MACHINES, Kind.THROUGH},
        f"-o {MESH_PREFIX}+": {Kind.THROUGH},
    }
    found = [side for side, of in sides.items() if not of.isdisjoint(kinds)]
    return found + [f"-p udp --dport {port}" for port in ports]


def _ufw(finding: Finding) -> list[str]:
    commands = [f"ufw route allow in on {name}" for name in _interfaces(finding.cases, Kind.OUT, Kind.THROUGH)]
    commands += [f"ufw route allow out on {name}" for name in _interfaces(finding.cases, Kind.IN, Kind.THROUGH)]
    commands += [f"ufw allow {port}/udp" for port in _ports(finding.cases)]
    asked = _interfaces(finding.cases, Kind.GATEWAY, Kind.MACHINES)
    return commands + [f"ufw allow in on {name}" for name in asked]


def _firewalld(finding: Finding) -> list[str]:
    permanent = "firewall-cmd --permanent"
    names = _interfaces(finding.cases, *(kind for kind in Kind if kind is not Kind.PORT))
    commands = [f"{permanent} --zone=trusted --add-interface={name}" for name in names]
    commands += [f"{permanent} --add-port={port}/udp" for port in _ports(finding.cases)]
    if _interfaces(finding.cases, Kind.IN, Kind.THROUGH):  # the zone lets its own connections out, but none in
        policy = f"{permanent} --policy=wgvpn"
        commands += [f"{permanent} --new-policy=wgvpn", f"{policy} --set-target=ACCEPT"]
        commands += [f"{policy} --add-ingress-zone=ANY", f"{policy} --add-egress-zone=trusted"]
    return [*commands, "firewall-cmd --reload"]


def _interfaces(cases: Iterable[Case], *kinds: Kind) -> list[str]:
    return sorted({case.interface for case in cases if case.kind in kinds})


def _ports(cases: Iterable[Case]) -> list[int]:
    return sorted({case.port for case in cases if case.kind is Kind.PORT})


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + (" and " if len(words) > 1 else "") + words[-1]
