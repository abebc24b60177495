"""Who serves a network that several gateways could: never two, never one who is gone, and nobody is hurried back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from wgpeers.lifecycle.site_failover import Gateway, choose

NOW = 1000.0
HYSTERESIS = 30.0
LONG_AGO = NOW - 300


def gateway(row: int, *, active: bool = False, since: float | None = LONG_AGO, **fields: Any) -> Gateway:
    """Of priority ``row``; connected long ago and never probed, if nothing else is said."""
    return Gateway(row, row, active, since, **fields)


OK: dict[str, Any] = {"probe_ok": True, "probe_changed": LONG_AGO}
SILENT: dict[str, Any] = {"probe_ok": False, "probe_changed": NOW - 1}
JUST_WELL: dict[str, Any] = {"probe_ok": True, "probe_changed": NOW - 29}
WELL_AGAIN: dict[str, Any] = {"probe_ok": True, "probe_changed": NOW - 30}

DECISIONS = {
    "nobody has a row": ([], None),
    "nobody is connected": ([gateway(1, since=None, active=True), gateway(2, since=None)], None),
    "one that has just connected takes what nobody serves": ([gateway(1, since=None), gateway(2, since=NOW)], 2),
    "of two that are there the primary": ([gateway(2), gateway(1)], 1),
    "of two that are there the one that answers": ([gateway(1, **SILENT), gateway(2, **OK)], 2),
    "never probed counts as well": ([gateway(1), gateway(2, **OK)], 1),
    "a holder whose connection has ended loses it at once": ([gateway(1, active=True, since=None), gateway(2)], 2),
    "a holder that is silent loses it at once": ([gateway(1, active=True, **SILENT), gateway(2, since=NOW)], 2),
    "a silent holder keeps it from nobody": ([gateway(1, active=True, **SILENT), gateway(2, since=None)], 1),
    "nor from one that is silent too": ([gateway(2, active=True, **SILENT), gateway(1, **SILENT)], 2),
    "a silent one is better than none": ([gateway(1, **SILENT), gateway(2, since=None)], 1),
    "a standby holds on while the primary has just come": ([gateway(1, since=NOW - 29), gateway(2, active=True)], 2),
    "the primary gets it back after a while": ([gateway(1, since=NOW - 30), gateway(2, active=True)], 1),
    "not when it has been well for less": ([gateway(1, **JUST_WELL), gateway(2, active=True)], 2),
    "when it has been well for that long": ([gateway(1, **WELL_AGAIN), gateway(2, active=True)], 1),
    "connected long ago, but well only since": ([gateway(1, **JUST_WELL, since=None), gateway(2, active=True)], 2),
    "well long ago, but connected only since": ([gateway(1, since=NOW - 5, **OK), gateway(2, active=True)], 2),
    "never to a lower one": ([gateway(1, active=True), gateway(2)], 1),
    "a failed standby gives it up at once": ([gateway(1, **JUST_WELL), gateway(2, active=True, **SILENT)], 1),
    "the best of three": ([gateway(1, **SILENT), gateway(3, active=True), gateway(2, **OK)], 2),
    "the first of three that waited long enough": ([gateway(1, since=NOW), gateway(3, active=True), gateway(2)], 2),
}


@pytest.mark.parametrize("name", DECISIONS)
def test_who_serves(name: str) -> None:
    gateways, chosen = DECISIONS[name]
    assert choose(gateways, NOW, HYSTERESIS) == chosen


moments = st.floats(NOW - 100, NOW)
some_gateways = st.lists(
    st.builds(
        Gateway,
        row=st.integers(1, 6),
        priority=st.integers(1, 100),
        active=st.just(False),
        connected=st.none() | moments,
        probe_ok=st.sampled_from([None, True, False]),
        probe_changed=moments,
    ),
    unique_by=(lambda each: each.row, lambda each: each.priority),
    max_size=6,
)


@given(some_gateways, st.data())
def test_whatever_the_facts(gateways: list[Gateway], data: st.DataObject) -> None:
    """Somebody serves exactly when somebody is connected, one that is well if there is any; asked again at the same
    moment, the answer stays; in whatever order the rows come."""
    if gateways:
        number = data.draw(st.integers(-1, len(gateways) - 1))
        gateways = [with_active(each, index == number) for index, each in enumerate(gateways)]
    chosen = choose(gateways, NOW, HYSTERESIS)
    connected = {each.row for each in gateways if each.connected is not None}
    well = {each.row for each in gateways if each.well}
    assert (chosen is None) == (not connected)
    assert chosen is None or chosen in (well or connected)
    after = [with_active(each, each.row == chosen) for each in gateways]
    assert choose(after, NOW, HYSTERESIS) == chosen
    assert choose(data.draw(st.permutations(gateways)), NOW, HYSTERESIS) == chosen


def with_active(each: Gateway, active: bool) -> Gateway:
    return Gateway(each.row, each.priority, active, each.connected, each.probe_ok, each.probe_changed)


class Gateways(RuleBasedStateMachine):
    """Three gateways that come, go, fall silent and recover as they like; after each event it is decided anew."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.gateways = {row: Gateway(row, row, False, None) for row in (1, 2, 3)}
        self.well_since = dict.fromkeys((1, 2, 3), self.now)
        self.holder: int | None = None

    def change(self, row: int, connected: float | None, ok: bool | None, changed: float | None) -> None:
        before = self.gateways[row]
        self.gateways[row] = Gateway(row, row, before.active, connected, ok, changed)
        if not before.well and self.gateways[row].well:
            self.well_since[row] = self.now

    def decide(self) -> None:
        before, self.holder = self.holder, choose(self.gateways.values(), self.now, HYSTERESIS)
        was = self.gateways.get(before or 0)
        if was is not None and was.well and before != self.holder:
            # Taken from one that is well: only by a better one, and only after the time that keeps it from flapping.
            assert self.holder is not None
            assert self.holder < was.row
            assert self.now - self.well_since[self.holder] >= HYSTERESIS
        self.gateways = {row: with_active(each, row == self.holder) for row, each in self.gateways.items()}

    @rule(row=st.sampled_from([1, 2, 3]))
    def connects(self, row: int) -> None:
        each = self.gateways[row]
        if each.connected is None:
            self.change(row, self.now, each.probe_ok, each.probe_changed)
        self.decide()

    @rule(row=st.sampled_from([1, 2, 3]))
    def ends(self, row: int) -> None:
        each = self.gateways[row]
        self.change(row, None, each.probe_ok, each.probe_changed)
        self.decide()

    @rule(row=st.sampled_from([1, 2, 3]), ok=st.booleans())
    def is_probed(self, row: int, ok: bool) -> None:
        each = self.gateways[row]
        if each.connected is not None and each.probe_ok is not ok:
            self.change(row, each.connected, ok, self.now)
        self.decide()

    @rule(seconds=st.sampled_from([1.0, 10.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.decide()

    @precondition(lambda self: any(each.well for each in self.gateways.values()))
    @rule()
    def all_is_quiet_for_long(self) -> None:
        """In the end the best that is well has it."""
        self.now += HYSTERESIS
        self.decide()
        assert self.holder == min(row for row, each in self.gateways.items() if each.well)

    @invariant()
    def one_that_is_connected_serves(self) -> None:
        connected = {row for row, each in self.gateways.items() if each.connected is not None}
        assert (self.holder in connected) if connected else (self.holder is None)
        assert sum(each.active for each in self.gateways.values()) == (self.holder is not None)


TestGateways = Gateways.TestCase
