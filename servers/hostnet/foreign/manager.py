"""Other firewalls on this host: which of them drop our packets, and the rules that let these pass.

An accept in our own table does not overrule a drop in another one (docker's, ufw's, firewalld's). Nothing of theirs is
touched, unless the administrator says so; then single rules with our comment are put first into their chains, and
taken out again. Never is anything without our comment changed, and never is anything flushed.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers.hostnet.firewall.ruleset import TABLE
from servers.hostnet.firewall.table import FirewallError
from servers.hostnet.state import Code, HostCondition, HostState, Interface, Peer, routing_table
from servers.hostnet.subsystem import Stage

from . import machines
from .advice import Finding, rules
from .evaluate import Chain, Rule, Ruleset, Verdict
from .iptables_legacy import Legacy
from .packets import Case, Exits, Statement, cases

log = logging.getLogger("hostnet.foreign")

COMMENT = "wgvpn"
UNREADABLE = "Other firewalls of this host cannot be looked at"
HOOKS = ("forward", "input")
TIMEOUT = 30  # seconds for one command

Run = Callable[[Sequence[str], str], str]


@dataclass(frozen=True, slots=True)
class Alteration:
    """Our rules in a chain of others, as they are and as they should be; and what does not pass there without them."""

    chain: Chain
    present: Sequence[Rule]
    desired: Sequence[Sequence[Statement]]
    finding: Finding | None = None

    def __str__(self) -> str:
        out = f"take out {len(self.present)} of our rules" if self.present else ""
        put = f"put {len(self.desired)} of our rules first" if self.desired else ""
        return f"{self.chain}: {', '.join(filter(None, [out, put]))}"


def run(command: Sequence[str], text: str) -> str:
    """What ``command`` prints; raise ``FirewallError`` with what it says if it fails."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FirewallError(f"{command[0]}: {type(error).__name__}") from error
    if done.returncode != 0:
        raise FirewallError(f"{command[0]}: {done.stderr.strip()[:300]}")
    return done.stdout


class Foreign:
    """A ``Subsystem``: each ``apply`` and each ``preview`` reads the tables of others once. One thread at a time."""

    stage = Stage.FOLLOWER

    def __init__(self, run: Run = run, proc: Path = routing_table.PROC) -> None:
        self._run = run
        self._proc = proc
        self._legacy = Legacy(run, proc)
        self._known: list[tuple[Ruleset, Sequence[Case], list[Finding]]] = []
        self._conditions: list[HostCondition] = []

    def check(self, interfaces: Sequence[Interface], web_port: int) -> list[HostCondition]:
        """What keeps packets of ``interfaces`` from passing, or that it cannot be found out. Changes nothing."""
        needed = self._needed(interfaces, web_port)
        try:
            found = [str(finding) for finding in self._look(self._read(), needed)]
        except FirewallError as error:
            return [_unreadable(error)]
        return _in_the_way(found + self._legacy.check(needed))

    def apply(self, state: HostState) -> None:
        """Put our rules into other firewalls where they are needed, or where these are not to be opened take all of
        them out. It takes as long as nft does: with many thousands of rules of others, seconds."""
        try:
            found = self._let_pass(state)
        except FirewallError as error:
            log.warning("other firewalls: %s", error)
            self._conditions = [_unreadable(error)]
        else:
            self._conditions = _in_the_way(found)

    def _let_pass(self, state: HostState) -> list[str]:
        """In words, what does not pass all the same."""
        needed, ruleset = self._all_needed(state), self._read()
        open_them = state.open_foreign_firewalls
        left = self._insert_rules(ruleset, needed) if open_them else self._take_back(ruleset, needed)
        return left + self._legacy.check(needed)

    def _needed(self, interfaces: Sequence[Interface], web_port: int) -> list[Case]:
        return cases(interfaces, web_port, Exits(routing_table.read(self._proc)))

    def _all_needed(self, state: HostState) -> list[Case]:
        """Those of the mesh as well."""
        exits = Exits(routing_table.read(self._proc))
        return [*cases(state.interfaces, state.web_port, exits), *machines.cases(state, exits)]

    def change(self, interface: Interface, gone: Sequence[Peer], new: Sequence[Peer]) -> None:
        """Nothing: which packets must pass is asked with each full state, so that no connect waits for it."""

    def preview(self, state: HostState) -> list[str]:
        """As ``Subsystem`` says, or why that cannot be found out."""
        try:
            needed, ruleset = self._all_needed(state), self._read()
        except FirewallError as error:
            return [str(_unreadable(error))]
        alterations = self._helping(ruleset, needed) if state.open_foreign_firewalls else _removing(ruleset)
        return [str(alteration) for alteration in alterations]

    def drift(self) -> list[str]:
        """Nothing: these tables are theirs."""
        return []

    def conditions(self) -> list[HostCondition]:
        """What did not pass at the last ``apply``, or could not be found out."""
        return self._conditions

    def remove(self) -> None:
        """Take out every rule of ours. Raise ``FirewallError``."""
        for alteration in _removing(self._read()):
            self._change(alteration)

    def _read(self) -> Ruleset:
        try:
            # Not "list tables", which takes nft a quarter of a second where our own table is large.
            hooked = Ruleset.parse(self._nft("--terse", "list", "chains"))
            tables = dict.fromkeys((base.family, base.table) for hook in HOOKS for base in hooked.bases(hook))
            listed = [self._table(*table) for table in tables if " ".join(table) != TABLE]
            ruleset = Ruleset.parse(*filter(None, listed))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FirewallError(f"nft: unreadable list of rules ({type(error).__name__})") from error
        for family in ruleset.families_of_iptables():
            self._explain(ruleset, family)
        return ruleset

    def _table(self, family: str, name: str) -> str:
        """Empty if it has just gone."""
        try:
            return self._nft("list", "table", family, name)
        except FirewallError as error:
            if "No such file or directory" in str(error):
                return ""
            raise

    def _nft(self, *arguments: str) -> str:
        """JSON, without counters, which differ each time."""
        return self._run(["nft", "-j", "--stateless", *arguments], "")

    def _explain(self, ruleset: Ruleset, family: str) -> None:
        """nft cannot say what iptables' own matches are; iptables can, where it is installed."""
        names = [f"{family}tables-nft-save", f"{family}tables-save"]
        command = next((name for name in names if shutil.which(name)), None)
        if command is None:
            return
        try:
            saved = self._run([command, "-t", "filter"], "")
            if "(nf_tables)" in saved:  # else it speaks of the old iptables' tables, which are others
                ruleset.explain(family, saved)
        except (FirewallError, ValueError, StopIteration) as error:
            log.info("%s says nothing of use: %s", command, error)

    def _look(self, ruleset: Ruleset, needed: Sequence[Case]) -> list[Finding]:
        """``examine``, or what it said of the same a short while ago: with many thousands of rules it takes seconds."""
        for before, cases_before, findings in self._known:
            if before == ruleset and cases_before == needed:
                return findings
        findings = examine(ruleset, needed)
        self._known = [(ruleset, needed, findings), *self._known[:1]]  # with our rules, and without
        return findings

    def _insert_rules(self, ruleset: Ruleset, needed: Sequence[Case]) -> list[str]:
        """Each chain in a transaction of its own, so that one that refuses does not hold up the others."""
        errors = []
        for each in self._helping(ruleset, needed):
            try:
                self._change(each)
            except FirewallError as error:
                errors.append(f"{each.finding} (our own rule was refused: {error})" if each.finding else str(error))
        return errors

    def _helping(self, ruleset: Ruleset, needed: Sequence[Case]) -> Iterator[Alteration]:
        """What must be altered so that everything passes."""
        dropping = {str(finding.chain): finding for finding in self._look(ruleset, needed)}
        mine = {str(chain): (chain, rules_of_it) for chain, rules_of_it in ours(ruleset)}
        bare = ruleset.without(COMMENT)
        without = {str(finding.chain): finding for finding in (self._look(bare, needed) if mine else dropping.values())}
        for name in sorted({*mine, *without}):
            chain, present = mine.get(name) or (without[name].chain, [])
            desired = rules(without[name].cases) if name in without else []
            # Ours may all be there and yet not help: somebody put a drop before them.
            if name in dropping or not _same(present, desired):
                yield Alteration(chain, present, desired, without.get(name))

    def _take_back(self, ruleset: Ruleset, needed: Sequence[Case]) -> list[str]:
        errors = []
        for each in _removing(ruleset):
            try:
                self._change(each)
            except FirewallError as error:
                errors.append(f"{each.chain}: our rule could not be taken out: {error}")
        return [str(finding) for finding in self._look(ruleset.without(COMMENT), needed)] + errors

    def _change(self, alteration: Alteration) -> None:
        """Replace our rules in the chain, in one transaction."""
        chain, present, desired = alteration.chain, alteration.present, alteration.desired
        if present and not self._still_there(chain, present):
            raise FirewallError(f"{chain} is just being changed by others; the next full state looks again")
        place = {"family": chain.family, "table": chain.table, "chain": chain.name}
        commands: list[dict[str, Any]] = [{"delete": {"rule": {**place, "handle": rule.handle}}} for rule in present]
        for rule in desired:
            expression = [*rule, {"accept": None}]
            commands.append({"insert": {"rule": {**place, "expr": expression, "comment": COMMENT}}})
        self._run(["nft", "-j", "-f", "-"], json.dumps({"nftables": commands}))
        log.info("%s: %d rules of ours instead of %d", chain, len(desired), len(present))

    def _still_there(self, chain: Chain, rules: Sequence[Rule]) -> bool:
        """Whether these handles are still ours.

        nft deletes by handle alone, and a tool that makes its table anew numbers it from 1: then the handle that was
        ours is a rule of theirs. Looked at last of all, that leaves the time between two commands for it.
        """
        text = self._table(chain.family, chain.table)
        now = Ruleset.parse(text).chains.get((chain.family, chain.table, chain.name)) if text else None
        statements = {rule.handle: rule.statements for rule in now.rules} if now else {}
        return all(statements.get(rule.handle) == rule.statements for rule in rules)


def _unreadable(error: FirewallError) -> HostCondition:
    return HostCondition.of(Code.FOREIGN_UNREADABLE, f"{UNREADABLE}: {error}")


def _in_the_way(found: Sequence[str]) -> list[HostCondition]:
    return [HostCondition.of(Code.FOREIGN_FIREWALL, text) for text in found]


def examine(ruleset: Ruleset, needed: Sequence[Case]) -> list[Finding]:
    """Which base chains stop which of the cases."""
    found = []
    for hook in HOOKS:
        mine = [case for case in needed if case.packet.hook == hook]
        for_these = ruleset.pruned([case.packet for case in mine])
        for chain in for_these.bases(hook):
            fates = [(case, for_these.fate(chain, case.packet)) for case in mine]
            dropped = tuple(case for case, fate in fates if fate == Verdict.DROP)
            doubtful = tuple(case for case, fate in fates if fate == Verdict.DROP | Verdict.ACCEPT)
            if dropped or doubtful:
                found.append(Finding(chain, dropped, doubtful))
    return found


def ours(ruleset: Ruleset) -> list[tuple[Chain, list[Rule]]]:
    """Chains of others with the rules of ours in them."""
    found = []
    for chain in ruleset.chains.values():
        mine = [rule for rule in chain.rules if rule.comment == COMMENT]
        if mine:
            found.append((chain, mine))
    return found


def _removing(ruleset: Ruleset) -> list[Alteration]:
    return [Alteration(chain, mine, []) for chain, mine in ours(ruleset)]


def _same(present: Sequence[Rule], desired: Sequence[Sequence[Statement]]) -> bool:
    """Whether the rules say the same, whatever order; counters and comments of iptables' own are no difference."""
    there = [json.dumps([s for s in rule.statements if "match" in s], sort_keys=True) for rule in present]
    return sorted(there) == sorted(json.dumps(list(rule), sort_keys=True) for rule in desired)
