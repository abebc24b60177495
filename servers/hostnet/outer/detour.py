"""WireGuard's own packets go around the tunnels.

A client's public address may lie in a network that is routed to another client, or to that very one. The packets that
WireGuard sends to it would then go into a tunnel, and from there into it again. They carry a mark; a routing rule has
the main table answer for them as for all others, but takes no answer that leads to a link of our group; and then a
table of its own, without any of our routes, has the host's ways to those addresses.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from servers.hostnet.netlink.links import LinkError
from servers.hostnet.state import Code, HostCondition, HostState, Interface, Peer
from servers.hostnet.subsystem import Stage

from . import kernel
from .kernel import RULES, Rule
from .ways import Way, beside, ours

log = logging.getLogger("hostnet.outer")


class Detour:
    """A follower. It needs no single changes: a network that a client may serve is known before somebody does."""

    stage = Stage.FOLLOWER

    def __init__(self) -> None:
        self._rules: frozenset[Rule] = frozenset()
        self._ways: frozenset[Way] = frozenset()  # as the last ``apply`` left them
        self._error = ""

    def apply(self, state: HostState) -> None:
        tunnels = ours(state.interfaces)
        self._rules = RULES if tunnels else frozenset()
        try:
            with kernel.netlink() as opened:
                families = _families(host := kernel.read_host(opened))
                self._rules = frozenset(rule for rule in self._rules if rule.family in families)
                self._ways = beside(tunnels, host)
                _make_so(opened, self._rules, self._ways)
            self._error = ""
        except LinkError as error:
            log.error("%s", error)
            self._error = str(error)

    def change(self, interface: Interface, gone: Sequence[Peer], new: Sequence[Peer]) -> None:
        pass

    def preview(self, state: HostState) -> list[str]:
        try:
            with kernel.netlink() as opened:
                host, tunnels = kernel.read_host(opened), ours(state.interfaces)
                rules = {rule for rule in RULES if tunnels and rule.family in _families(host)}
                same = kernel.read_rules(opened) == rules and kernel.read_table(opened) == beside(tunnels, host)
        except LinkError as error:
            return [str(error)]
        return [] if same else ["routing rules of WireGuard's own packets: write them anew"]

    def drift(self) -> list[str]:
        if self._error:
            return []  # what is missing now is nobody else's doing
        try:
            with kernel.netlink() as opened:
                same = kernel.read_rules(opened) == self._rules and kernel.read_table(opened) == self._ways
        except LinkError:
            return []
        return [] if same else ["routing rules of WireGuard's own packets were changed or removed"]

    def conditions(self) -> list[HostCondition]:
        return [HostCondition.of(Code.OUTER_FAILED, self._error)] if self._error else []

    @staticmethod
    def remove() -> None:
        """Take all of it away, whoever left it. Raise ``LinkError``."""
        with kernel.netlink() as opened:
            _make_so(opened, frozenset(), frozenset())


def _families(ways: Iterable[Way]) -> set[int]:
    return {way.family for way in ways}


def _make_so(opened: object, rules: frozenset[Rule], ways: frozenset[Way]) -> None:
    """Routes are there before a rule leads to them, and gone only after it."""
    table, present = kernel.read_table(opened), kernel.read_rules(opened)
    # Of one network and metric the kernel keeps one route, so the old one goes first.
    for way in sorted(table - ways):
        kernel.change_way(opened, "del", way)
    for way in sorted(ways - table):
        kernel.change_way(opened, "add", way)
    for rule in sorted(rules - present):
        kernel.change_rule(opened, "add", rule)
    for rule in sorted(present - rules):
        kernel.change_rule(opened, "del", rule)
