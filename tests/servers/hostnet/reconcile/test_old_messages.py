"""An old message never wins: messages come late, twice and in any order, and what is desired is right all the same."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from servers.hostnet.reconcile.desired import Desired
from servers.hostnet.state import AddPeer, HostState, Peer
from tests.servers.hostnet.reconcile.shuffled import SERVERS, ControlAndHost


def check(wanted_class: type[Desired], examples: int) -> None:
    class Machine(ControlAndHost):
        pass

    Machine.wanted_class = wanted_class
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=80,
            deadline=None,
            database=None,
            derandomize=wanted_class is not Desired,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate] if wanted_class is not Desired else list(Phase),
        ),
    )


def test_an_old_message_never_wins() -> None:
    check(Desired, 300)


class Forgetful(Desired):
    """Does not remember what ended."""

    def _remember_ended(self, connection: str) -> None:
        pass


class TakesOlderStates(Desired):
    def take_full(self, state: HostState, now: float) -> bool:
        self.ready = False
        return super().take_full(state, now)


class TakesStatesOfOtherRuns(Desired):
    def take_full(self, state: HostState, now: float) -> bool:
        return super().take_full(dataclasses.replace(state, boot=self.boot), now)


class DropsNewerPeers(Desired):
    """Believes a full state about everything, not only up to its version."""

    def take_full(self, state: HostState, now: float) -> bool:
        taken = super().take_full(state, now)
        if taken:
            listed = {peer.connection for interface in state.interfaces for peer in interface.peers}
            self.remove([held.peer.connection for held in self.held() if held.peer.connection not in listed])
        return taken


class TakesStaleAdditions(Desired):
    def add(self, message: AddPeer, now: float) -> str:
        peer = message.peer
        if self.ready and peer.version <= self.version:
            peer = dataclasses.replace(peer, version=self.version + 1)
        return super().add(dataclasses.replace(message, peer=peer), now)


class AddsBeforeTheFirstState(Desired):
    def add(self, message: AddPeer, now: float) -> str:
        if not self.ready and message.server in SERVERS:
            self._hold(message.server, message.peer, now)
        return super().add(message, now)


class LetsLingerForEver(Desired):
    def end_overdue(self) -> None:
        pass


class LetsLingerAnew(Desired):
    """Believes each state that has it about its time."""

    def _let_linger(self, server: str, peer: Peer, now: float) -> None:
        self.peers.lingering.forget(peer.connection)
        if self.peers.by_connection.get(peer.connection, None) is not None:
            self.peers.lingering.allow(peer.connection, peer.lingers)
        super()._let_linger(server, peer, now)


class BringsBackWhoLingered(Desired):
    def _let_linger(self, server: str, peer: Peer, now: float) -> None:
        if peer.connection not in self.peers.by_connection:
            self._ended.pop(peer.connection, None)
        super()._let_linger(server, peer, now)


class OpensWhoLingers(Desired):
    """Takes a late state for the newest word."""

    def take_full(self, state: HostState, now: float) -> bool:
        for connection in [*self.peers.lingering]:
            self._ended.pop(connection, None)
            self.peers.lingering.forget(connection)
        return super().take_full(state, now)


BROKEN = [
    LetsLingerForEver,
    LetsLingerAnew,
    BringsBackWhoLingered,
    OpensWhoLingers,
    Forgetful,
    TakesOlderStates,
    TakesStatesOfOtherRuns,
    DropsNewerPeers,
    TakesStaleAdditions,
    AddsBeforeTheFirstState,
]


@pytest.mark.long
@pytest.mark.parametrize("wanted_class", BROKEN)
def test_that_test_sees_each_rule_broken(wanted_class: type[Desired]) -> None:
    with pytest.raises(AssertionError):
        check(wanted_class, 10_000)
