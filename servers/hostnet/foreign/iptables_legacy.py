"""Tables of the old iptables (``iptables-legacy``), which nftables neither sees nor can change."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from servers.hostnet.firewall.table import FirewallError

from .advice import matches
from .packets import Case, Kind

log = logging.getLogger("hostnet.legacy")


class Legacy:
    """``run`` carries out a command with an input. Costs two small files where the kernel has no such tables."""

    def __init__(self, run: Callable[[Sequence[str], str], str], proc: Path) -> None:
        self._run = run
        self._proc = proc

    def check(self, needed: Sequence[Case]) -> list[str]:
        """In words, what such tables would drop of ``needed``, as far as their last word for everything else says."""
        found = []
        for family, version in (("ip", 4), ("ip6", 6)):
            mine = [case for case in needed if case.packet.version == version]
            command = f"{family}tables-legacy"
            if not mine or not self._has_filter(family) or not shutil.which(f"{command}-save"):
                continue
            try:
                found += findings(command, self._run([f"{command}-save", "-t", "filter"], ""), mine)
            except FirewallError as error:
                log.warning("%s", error)
                found.append(f"{command}-save cannot be read, and its tables may drop our packets: {error}")
        return found

    def _has_filter(self, family: str) -> bool:
        """Asked of the kernel first: listing a table that is not there would make it."""
        try:
            return "filter" in (self._proc / f"{family}_tables_names").read_text().split()
        except OSError:
            return False


def findings(command: str, saved: str, needed: Sequence[Case]) -> list[str]:
    lines = saved.splitlines()
    kinds = {case.kind for case in needed}
    ports = sorted({case.port for case in needed if case.kind is Kind.PORT})
    wants = {
        "FORWARD": matches(kinds & {Kind.OUT, Kind.IN, Kind.THROUGH}, ()),
        "INPUT": matches(kinds & {Kind.GATEWAY, Kind.MACHINES}, ports),
    }
    found = []
    for chain, wanted in wants.items():
        if not _drops(lines, chain):
            continue
        commands = [f"{command} -I {chain} {match} -j ACCEPT" for match in wanted if not _accepts(lines, chain, match)]
        if commands:
            message = f"{command} {chain} drops what none of its rules accepts, which may be ours"
            found.append(f"{message}. To let our packets pass: {' && '.join(commands)}")
    return found


def _drops(lines: Sequence[str], chain: str) -> bool:
    policy = any(line.startswith(f":{chain} DROP") for line in lines)
    return policy or any(line.startswith((f"-A {chain} -j DROP", f"-A {chain} -j REJECT")) for line in lines)


def _accepts(lines: Sequence[str], chain: str, match: str) -> bool:
    """Whether such a rule is there, as iptables writes it back."""
    rule = match.replace("-p udp ", "-p udp -m udp ")
    chains = (chain, "DOCKER-USER") if chain == "FORWARD" else (chain,)
    return any(f"-A {name} {rule} -j ACCEPT" in lines for name in chains)
