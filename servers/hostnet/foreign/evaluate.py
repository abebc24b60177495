"""What a machine's nftables rules do to one packet, from ``nft -j list ruleset``. Pure, and without any other part.

Not a simulation of the kernel: a rule that matches by something that cannot be known here (a mark, a rate, a module
of iptables) may match or not, and both ways are followed. The answer is then that the packet may be dropped.
"""

from __future__ import annotations

import enum
import json
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .match import Packet, any_of, holds, module_holds, value_of

FAMILIES = {"ip": (4,), "ip6": (6,), "inet": (4, 6)}
# Statements, and targets of iptables, after which the packet goes on to whatever comes next.
PASSING = {"counter", "log", "mangle", "notrack", "ct helper", "ct timeout", "ct expectation", "flow", "set", "map"}
PASSING |= {"dup", "secmark", "last"}
PASSING_TARGETS = {"LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "CT", "SET", "CLASSIFY", "DSCP", "TTL", "HL", "TRACE"}
ALIASES = {"state": "conntrack"}  # modules that iptables saves by another name than the kernel's
ADDRESS = re.compile(r"[0-9a-f.]*[.:][0-9a-f.:]*")
MAYBE = {"limit", "quota", "ct count", "meter"}  # statements that match now and then


class Verdict(enum.Flag):
    """What may become of a packet; several at once where that cannot be known."""

    NEXT = enum.auto()  # the next rule
    RETURN = enum.auto()
    ACCEPT = enum.auto()
    DROP = enum.auto()


ANY = Verdict.NEXT | Verdict.ACCEPT | Verdict.DROP
PLAIN = {"accept": Verdict.ACCEPT, "drop": Verdict.DROP, "return": Verdict.RETURN, "continue": Verdict.NEXT}


@dataclass(frozen=True, slots=True)
class Rule:
    """``statements`` as in nft's JSON. ``modules``: arguments of iptables matches by name, where they are known."""

    handle: int
    comment: str
    statements: Sequence[Mapping[str, Any]]
    modules: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(slots=True)
class Chain:
    """``hook`` is empty for a chain that is only jumped to."""

    family: str
    table: str
    name: str
    hook: str
    policy: str
    rules: list[Rule] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


@dataclass(slots=True)
class Ruleset:
    """Chains and sets by ``(family, table, name)``."""

    chains: dict[tuple[str, str, str], Chain] = field(default_factory=dict)
    sets: dict[tuple[str, str, str], list[Any]] = field(default_factory=dict)

    @classmethod
    def parse(cls, *texts: str) -> Ruleset:
        """Read what ``nft -j list`` says of a ruleset, or of single tables.

        Raise ``ValueError``, ``KeyError``, ``TypeError`` or ``AttributeError`` where it is none.
        """
        ruleset = cls()
        rules: list[Mapping[str, Any]] = []
        for item in (item for text in texts for item in json.loads(text)["nftables"]):
            (kind, one), *_ = item.items()
            if kind == "rule":
                rules.append(one)
            elif kind == "chain":
                where = (one["family"], one["table"], one["name"])
                ruleset.chains[where] = Chain(*where, one.get("hook", ""), one.get("policy", "accept"))
            elif kind in {"set", "map"}:
                ruleset.sets[one["family"], one["table"], one["name"]] = one.get("elem", [])
        for rule in rules:  # in their order within each chain
            chain = ruleset.chains[rule["family"], rule["table"], rule["chain"]]
            chain.rules.append(Rule(int(rule["handle"]), str(rule.get("comment", "")), rule["expr"]))
        return ruleset

    def bases(self, hook: str) -> list[Chain]:
        return [chain for chain in self.chains.values() if chain.hook == hook and chain.family in FAMILIES]

    def without(self, comment: str) -> Ruleset:
        """The same without the rules of that comment."""
        other = Ruleset(sets=self.sets)
        for where, chain in self.chains.items():
            other.chains[where] = replace(chain, rules=[rule for rule in chain.rules if rule.comment != comment])
        return other

    def pruned(self, packets: Collection[Packet]) -> Ruleset:
        """The same for these packets, without rules for single addresses that are none of theirs. Tools that block
        addresses one by one make many thousands of these."""
        addresses = {
            "saddr": {str(packet.source) for packet in packets},
            "daddr": {str(packet.destination) for packet in packets},
        }
        if any(packet.destination is None for packet in packets):
            del addresses["daddr"]
        other = Ruleset(sets=self.sets)
        for where, chain in self.chains.items():
            rules = [rule for rule in chain.rules if not _is_for_others(rule, addresses)]
            other.chains[where] = replace(chain, rules=rules)
        return other

    def families_of_iptables(self) -> list[str]:
        """``ip`` and ``ip6``, where the filter table has matches that only iptables can read."""
        return [
            family
            for family in ("ip", "ip6")
            if any(
                "xt" in statement
                for chain in self.chains.values()
                if (chain.family, chain.table) == (family, "filter")
                for rule in chain.rules
                for statement in rule.statements
            )
        ]

    def explain(self, family: str, saved: str) -> None:
        """Add what ``saved``, the output of iptables-save, tells of the matches in table ``filter`` of ``family``."""
        lines: dict[str, list[dict[str, list[str]]]] = {}
        for line in saved.splitlines():
            if line.startswith("-A "):
                words = shlex.split(line)
                lines.setdefault(words[1], []).append(_modules(words[2:]))
        for chain in self.chains.values():
            mine = lines.get(chain.name, [])
            # Somebody may have changed it between the two readings: then nothing is known.
            if (chain.family, chain.table) == (family, "filter") and len(mine) == len(chain.rules):
                chain.rules = [_explained(rule, modules) for rule, modules in zip(chain.rules, mine, strict=True)]

    # One packet

    def fate(self, base: Chain, packet: Packet) -> Verdict:
        """ACCEPT, DROP or both: what ``base`` does to ``packet``, whatever other base chains do."""
        if packet.version not in FAMILIES[base.family]:
            return Verdict.ACCEPT
        verdict = self._chain(base, packet)
        if Verdict.RETURN in verdict:
            verdict |= PLAIN.get(base.policy, Verdict.ACCEPT)
        return verdict & (Verdict.ACCEPT | Verdict.DROP)

    def _chain(self, chain: Chain, packet: Packet) -> Verdict:
        found = Verdict(0)
        for rule in chain.rules:
            try:
                verdict = self._rule(chain, rule, packet)
            except (LookupError, ValueError, TypeError, AttributeError):  # of a form that a later nft may have
                verdict = ANY
            found |= verdict & ~Verdict.NEXT
            if Verdict.NEXT not in verdict:
                return found
        return found | Verdict.RETURN

    def _rule(self, chain: Chain, rule: Rule, packet: Packet) -> Verdict:
        """What the rule does; NEXT is among it if the packet may get past it."""
        past = Verdict(0)
        for statement in rule.statements:
            (kind, content), *_ = statement.items()
            matches = self._matches(chain, rule, kind, content, packet)
            if matches is False:
                return past | Verdict.NEXT
            if matches is None:
                past |= Verdict.NEXT
            else:
                verdict = self._verdict(chain, kind, content, packet)
                past |= verdict & ~Verdict.NEXT
                if Verdict.NEXT not in verdict:
                    return past
        return past | Verdict.NEXT

    def _matches(self, chain: Chain, rule: Rule, kind: str, content: Any, packet: Packet) -> bool | None:
        """Whether the packet gets past a match; True for what is none."""
        if kind == "match":
            return holds(content, packet, self._lookup(chain))
        if kind == "xt" and content and content.get("type") == "match":
            return module_holds(content["name"], rule.modules.get(content["name"]), packet)
        return None if kind in MAYBE else True

    def _verdict(self, chain: Chain, kind: str, content: Any, packet: Packet) -> Verdict:
        if kind in PLAIN:
            return PLAIN[kind]
        if kind == "reject":
            return Verdict.DROP
        if kind in {"jump", "goto"}:
            return self._call(chain, kind, content["target"], packet)
        if kind == "vmap":
            return self._verdict_map(chain, content, packet)
        if kind in PASSING or kind == "match" or (kind == "xt" and content and content.get("type") == "match"):
            return Verdict.NEXT
        if kind == "xt" and content and content.get("name") in PASSING_TARGETS:
            return Verdict.NEXT
        if kind == "xt" and content and content.get("name") == "REJECT":
            return Verdict.DROP
        return ANY

    def _call(self, chain: Chain, kind: str, target: str, packet: Packet) -> Verdict:
        verdict = self._chain(self.chains[chain.family, chain.table, target], packet)
        if kind == "jump" and Verdict.RETURN in verdict:
            verdict = (verdict & ~Verdict.RETURN) | Verdict.NEXT
        return verdict

    def _verdict_map(self, chain: Chain, content: Mapping[str, Any], packet: Packet) -> Verdict:
        """The verdicts of all elements that the key may be; NEXT where it may be none of them."""
        value, lookup = value_of(content["key"], packet), self._lookup(chain)
        data = content["data"]
        elements = lookup(data) if isinstance(data, str) else data["set"]
        found = Verdict(0)
        for key, verdict in elements:
            matches = any_of(value, [key], lookup)
            if matches is not False:
                (kind, target), *_ = verdict.items()
                found |= self._verdict(chain, kind, target, packet)
            if matches:  # keys do not overlap
                return found
        return found | Verdict.NEXT

    def _lookup(self, chain: Chain) -> Any:
        return lambda name: self.sets.get((chain.family, chain.table, name.removeprefix("@")))


def _is_for_others(rule: Rule, addresses: Mapping[str, set[str]]) -> bool:
    """Whether the rule begins with a single address that is none of ``addresses``, by field of the header."""
    match = rule.statements[0].get("match") if rule.statements else None
    if not match or match.get("op") != "==" or not isinstance(match.get("left"), Mapping):
        return False
    name, right = match["left"].get("payload", {}).get("field"), match.get("right")
    # Anything but an address as nft writes it (a set, a name) is looked at with the packet.
    return (
        isinstance(right, str)
        and name in addresses
        and ADDRESS.fullmatch(right) is not None
        and right not in addresses[name]
    )


def _modules(words: Sequence[str]) -> dict[str, list[str]]:
    """The arguments of each ``-m`` in a line of iptables-save."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "-m":
            name = next(rest)
            current = found.setdefault(ALIASES.get(name, name), [])
        elif word in {"-j", "-g"}:
            break
        else:
            current.append(word)
    return found


def _explained(rule: Rule, modules: Mapping[str, Sequence[str]]) -> Rule:
    # iptables keeps comments in a module of its own where it has written the rule.
    comment = modules.get("comment", ["", rule.comment])[-1]
    return Rule(rule.handle, rule.comment or comment, rule.statements, modules)
