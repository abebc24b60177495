"""What follows the peers of this host without holding up those who connect: names, probes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .state import Interface, Peer


class Follower(Protocol):
    """Told by the ``Applier`` what is wanted, in order and never twice at once.

    ``follow`` and ``change`` return at once, and nothing here raises: slow work happens in a thread of the follower's
    own. Single changes are told of once WireGuard and the firewall have them; those that failed, with the attempt that
    succeeds.
    """

    def follow(self, interfaces: Sequence[Interface]) -> None:
        """After each full state: everything that is wanted now, peers included."""

    def change(self, interface: Interface, gone: Sequence[Peer], new: Sequence[Peer]) -> None:
        """After a batch of single changes: what it changed on ``interface`` (given without its peers). A peer that was
        altered is in both."""

    def preview(self, interfaces: Sequence[Interface]) -> list[str]:
        """In words, what ``follow`` would change on this host. Changes nothing."""
