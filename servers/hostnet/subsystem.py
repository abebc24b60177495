"""What a host has beside its tunnels: our firewall, other firewalls, names, probes. All of it behind one protocol."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterable, Sequence
from typing import ClassVar, Protocol, runtime_checkable

from .state import Code, HostCondition, HostState, Interface, Peer, Remote


class SubsystemError(Exception):
    """A guard could not do what was asked of it. ``code`` is that of the condition which says so."""

    code: ClassVar[Code]


class Stage(enum.Enum):
    """When a subsystem's turn comes.

    GUARD: what keeps the tunnels shut. It is applied before any interface is made or changed, and as long as one guard
    fails no new tunnel is made and the host is not told to route: without our firewall a new one would open the whole
    host. Tunnels that run keep the rules that they have. At a single change it comes last of all that may fail, so that
    it alone need be taken back: what was done before it may be repeated.

    FOLLOWER: what must not hold up those who connect. It comes once everything else is done, and never fails.
    """

    GUARD = enum.auto()
    FOLLOWER = enum.auto()


class Subsystem(Protocol):
    """Told by the ``Applier`` what is desired, in the order of registration and never twice at once.

    The order of a full state: guards, forwarding, interfaces with their peers and routes, followers. Of a single
    change: WireGuard, routes, guards, and then, only where all of these succeeded, followers. Changes that failed are
    told of again with the attempt that succeeds.

    A guard raises ``SubsystemError`` where it cannot do what it is asked, and then has done nothing of it. A follower
    raises nothing and returns at once, or nearly so: slow work is for a thread of its own.
    """

    stage: Stage

    def apply(self, state: HostState) -> None:
        """With each full state: everything that is desired now. ``state.interfaces`` hold the peers desired now, those
        included that are newer than the message."""

    def change(self, interface: Interface, gone: Sequence[Peer], new: Sequence[Peer]) -> None:
        """After a batch of single changes: what it changed on ``interface`` (given without its peers). A peer that was
        altered is in both. A guard must bear being asked for the opposite right after, also if it failed."""

    def preview(self, state: HostState) -> list[str]:
        """In words, what ``apply`` would change on this host. Changes nothing. A guard may raise ``SubsystemError``."""

    def drift(self) -> list[str]:
        """In words, what others changed since the last ``apply``. A guard may raise ``SubsystemError``."""

    def conditions(self) -> list[HostCondition]:
        """What is wrong with it now, for the host's report, besides what it raised."""


@runtime_checkable
class FollowsRemotes(Protocol):
    """A subsystem that also has to do with clients of other hosts. It finds them in ``state.remotes`` of each full
    state, each with the addresses and networks that are sent to it and to nobody else."""

    def change_remotes(self, server: str, gone: Sequence[Remote], new: Sequence[Remote]) -> None:
        """What changed about them on ``server``, which is one of this host's or linked with one. One that was altered
        is in both. Raises nothing, and returns at once or nearly so."""


class Subsystems:
    """Those of this host, in their order."""

    def __init__(self, registered: Iterable[Subsystem] = ()) -> None:
        every = tuple(registered)
        self._guards = tuple(each for each in every if each.stage is Stage.GUARD)
        self._followers = tuple(each for each in every if each.stage is Stage.FOLLOWER)

    def guard(self, state: HostState) -> None:
        """Before interfaces are touched. Raise ``SubsystemError``."""
        for each in self._guards:
            each.apply(state)

    def follow(self, state: HostState) -> None:
        """Once the interfaces are as they should be."""
        for each in self._followers:
            each.apply(state)

    def change(self, interface: Interface, gone: Sequence[Peer], new: Sequence[Peer]) -> None:
        """All guards or none, and then the followers. Raise ``SubsystemError``."""
        for count, guard in enumerate(self._guards, 1):
            try:
                guard.change(interface, gone, new)
            except Exception:
                # Else what it could not do now would come with whatever it does next, also when these peers have ended.
                self._take_back(self._guards[:count], interface, gone, new)
                raise
        for follower in self._followers:
            follower.change(interface, gone, new)

    def change_remotes(self, server: str, gone: Sequence[Remote], new: Sequence[Remote]) -> None:
        for each in (*self._guards, *self._followers):
            if isinstance(each, FollowsRemotes):
                each.change_remotes(server, gone, new)

    def _take_back(
        self, asked: Sequence[Subsystem], interface: Interface, gone: Sequence[Peer], new: Sequence[Peer]
    ) -> None:
        for guard in reversed(asked):
            with contextlib.suppress(SubsystemError):
                guard.change(interface, new, gone)

    def preview(self, state: HostState, interfaces: Iterable[str], reached: HostState) -> list[str]:
        """In words, what ``state`` would change, ``interfaces`` in its place between guards and followers. ``reached``
        is what followers get of it."""
        before = [line for each in self._guards for line in each.preview(state)]
        return [*before, *interfaces, *(line for each in self._followers for line in each.preview(reached))]

    def drift(self) -> list[str]:
        return [line for each in (*self._guards, *self._followers) for line in each.drift()]

    def conditions(self) -> list[HostCondition]:
        return [condition for each in (*self._guards, *self._followers) for condition in each.conditions()]
