"""Connects, pings, ends, deaths of hosts, drains and messages in any order; see ``fleet_machine``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from servers.hostnet.reconcile.desired import Desired
from servers.hostnet.reconcile.remotes import Remotes
from servers.hostnet.state import HostState
from tests.conftest import Clock
from wgpeers.lifecycle import queries, reaper

from .fleet_machine import Fleet

Patch = pytest.MonkeyPatch


def check(clock: Clock, patch: Patch, examples: int, *, broken: bool = False, **changes: object) -> None:
    attributes = {"clock": clock, "patch": staticmethod(patch.setattr), **changes}
    run_state_machine_as_test(
        type("Machine", (Fleet,), attributes),
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            derandomize=broken,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate] if broken else list(Phase),
        ),
    )


def test_whatever_comes_in_whatever_order(transactional_db: None, fixed_clock: Clock, monkeypatch: Patch) -> None:
    check(fixed_clock, monkeypatch, 15)


class Keeps(Remotes):
    """What a full state lacks."""

    def take_full(self, state: HostState) -> None:
        held = list(self._held.values())
        super().take_full(state)
        for remote in held:
            self._hold(remote)


class KeepsRemotes(Desired):
    def __init__(self, boot: str, **options: Any) -> None:
        super().__init__(boot, **options)
        self.remotes = Keeps(100, self.uses)


def does_nothing(*_: object) -> None:
    return None


MUTANTS: dict[str, Callable[[Patch], dict[str, object]]] = {
    "keys are not spent": lambda patch: patch.setattr(queries, "insert_spent_key", does_nothing) or {},
    "nobody is swept": lambda patch: patch.setattr(reaper, "sweep_silent", does_nothing) or {},
    "hosts keep what went": lambda patch: {"desired_class": KeepsRemotes},
}


@pytest.mark.long
@pytest.mark.parametrize("what", MUTANTS)
def test_a_product_that_does_it_wrong_is_found_out(
    transactional_db: None, fixed_clock: Clock, monkeypatch: Patch, what: str
) -> None:
    changes = MUTANTS[what](monkeypatch)
    with pytest.raises(AssertionError):
        check(fixed_clock, monkeypatch, 400, broken=True, **changes)
