"""What follows the peers of this host without holding up those who connect: names, probes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .state import HostCondition, Interface, Peer


class Subsystem(Protocol):
    """Told by the ``Applier`` what is desired, in order and never twice at once.

    ``apply`` and ``change`` return at once, and nothing here raises: slow work happens in a thread of the subsystem's
    own. Single changes are told of once WireGuard and the firewall have them; those that failed, with the attempt that
    succeeds.
    """

    def apply(self, interfaces: Sequence[Interface]) -> None:
        """After each full state: everything that is desired now, peers included."""

    def change(self, interface: Interface, gone: Sequence[Peer], new: Sequence[Peer]) -> None:
        """After a batch of single changes: what it changed on ``interface`` (given without its peers). A peer that was
        altered is in both."""

    def preview(self, interfaces: Sequence[Interface]) -> list[str]:
        """In words, what ``apply`` would change on this host. Changes nothing."""

    def conditions(self) -> list[HostCondition]:
        """What is wrong with it now, for the host's report."""
