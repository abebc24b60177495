"""The plan of a run follows from its seed alone, and leaves nothing undone."""

from __future__ import annotations

from collections import defaultdict

import pytest

from .plan import CAREFUL, LEAVERS, MOVING, PROCESSES, SELDOM, SILENT, STEADY, WEIGHTS, Step, make_plan

UNDOES = {
    "enable": "disable",
    "let device in": "revoke device",
    "put into group": "take from group",
    "start server": "stop server",
    "remove route": "add route",
    "continue": "stop",
    "unlock database": "lock database",
    "free disk": "fill disk",
}
SEEDS = range(20)


def test_one_seed_is_one_plan_and_another_seed_another() -> None:
    assert make_plan(7, 120) == make_plan(7, 120)
    assert make_plan(7, 120) != make_plan(8, 120)


@pytest.mark.parametrize("seconds", [60, 120, 300])
def test_steps_are_in_order_and_within_the_time(seconds: int) -> None:
    for seed in SEEDS:
        times = [step.at for step in make_plan(seed, seconds)]
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] <= seconds


def test_whatever_is_done_for_a_time_is_undone_once_and_before_it_is_done_again() -> None:
    for seed in SEEDS:
        under_way: dict[str, set[str]] = defaultdict(set)
        for step in make_plan(seed, 300):
            if step.action in UNDOES.values():
                assert step.target not in under_way[step.action], (seed, step)
                under_way[step.action].add(step.target)
            elif step.action in UNDOES:
                assert step.target in under_way[UNDOES[step.action]], (seed, step)
                under_way[UNDOES[step.action]].remove(step.target)
        assert not any(under_way.values()), seed


def test_nothing_concerns_the_steady_ones() -> None:
    for seed in SEEDS:
        assert not {step.target for step in make_plan(seed, 300)} & set(STEADY)


def test_some_fall_silent_for_good_long_before_the_end() -> None:
    for seed in SEEDS:
        for name in SILENT:
            last = [step for step in make_plan(seed, 120) if (step.actor, step.target) == ("client", name)][-1]
            assert (last.action, last.at) == ("silence", 95.01)


def test_a_step_of_one_kind_changes_none_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(actor: str, steps: list[Step]) -> list[Step]:
        return [step for step in steps if step.actor == actor]

    without = make_plan(3, 120)
    monkeypatch.setitem(WEIGHTS, "kill", 1)
    others = make_plan(3, 120)
    assert of("fault", others) != of("fault", without)
    assert of("client", others) == of("client", without)
    assert of("admin", others) == of("admin", without)


def test_over_many_seeds_everything_happens_to_everybody() -> None:
    seen = {(step.action, step.target) for seed in SEEDS for step in make_plan(seed, 300)}
    for name, which in (*PROCESSES, *SELDOM):
        assert {("kill", f"{name} {which}"), ("stop", f"{name} {which}")} <= seen
    assert {("empty redis", ""), ("lock database", ""), ("fill disk", ""), ("step clock", "")} <= seen
    assert {("delete", name) for name in LEAVERS} <= seen
    assert {("used code", name) for name in CAREFUL} <= seen
    assert {(action, name) for action in ("disable", "revoke device") for name in CAREFUL} <= seen
    for name in MOVING:
        assert {(action, name) for action in ("connect", "silence", "new key", "other device", "old key")} <= seen


def test_supervisor_dies_less_often_than_bin_run_puts_up_with() -> None:
    for seed in range(60):
        kills = [step.at for step in make_plan(seed, 1800) if (step.action, step.target) == ("kill", "supervisor main")]
        # Not more than three within ten minutes.
        assert all(later - first >= 600 for first, later in zip(kills, kills[3:], strict=False)), seed


def test_each_run_of_two_minutes_has_every_fault_of_stores_and_of_the_machine() -> None:
    for seed in range(100):
        actions = {step.action for step in make_plan(seed, 120)}
        assert {"empty redis", "lock database", "step clock", "fill disk"} <= actions, seed
