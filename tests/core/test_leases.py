"""One holder at a time, whoever dies, whatever the time of day is."""

from __future__ import annotations

import pytest
import redis
from django.conf import LazySettings
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from core import clock, leases
from core.leases import Lease
from core.redis_store import redis_client
from tests.conftest import Clock

PATIENCE = 8.0


@pytest.fixture
def two(fixed_clock: Clock) -> tuple[Lease, Lease]:
    return Lease("x", PATIENCE, "a"), Lease("x", PATIENCE, "b")


def test_the_first_has_it_for_as_long_as_it_says_so(two: tuple[Lease, Lease], fixed_clock: Clock) -> None:
    first, second = two
    for _ in range(30):
        assert first.hold()
        assert not second.hold()
        fixed_clock.advance(1)
    assert leases.holder("x") == leases.Holder("a", 1)


def test_whoever_dies_is_followed_after_the_others_patience_and_not_before(
    two: tuple[Lease, Lease], fixed_clock: Clock
) -> None:
    first, second = two
    assert first.hold()
    for _ in range(8):
        assert not second.hold()
        fixed_clock.advance(1)
    assert second.hold()
    assert leases.holder("x") == leases.Holder("b", 2)
    assert not first.hold()  # should it not have been dead


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_the_time_of_day_has_no_part_in_it(two: tuple[Lease, Lease], fixed_clock: Clock, step: float) -> None:
    first, second = two
    assert first.hold()
    assert not second.hold()
    fixed_clock.step(step)
    assert not second.hold()
    assert redis_client().ttl(first.key) == -1
    fixed_clock.advance(PATIENCE)
    assert second.hold()


def test_of_several_who_wait_one_gets_it(two: tuple[Lease, Lease], fixed_clock: Clock) -> None:
    first, second = two
    third = Lease("x", PATIENCE)
    assert first.hold()
    assert not second.hold()
    assert not third.hold()
    fixed_clock.advance(PATIENCE)
    assert [second.hold(), third.hold(), first.hold()] == [True, False, False]


def test_who_gives_it_up_is_followed_at_once_and_takes_nobody_elses(two: tuple[Lease, Lease]) -> None:
    first, second = two
    assert first.hold()
    second.release()
    assert not second.hold()
    first.release()
    assert leases.holder("x") is None
    assert second.hold()
    assert leases.holder("x") == leases.Holder("b", 2)


def test_what_is_old_is_not_fresh(two: tuple[Lease, Lease], fixed_clock: Clock) -> None:
    first, second = two
    assert first.hold()
    assert (first.is_fresh(), second.is_fresh()) == (True, False)
    fixed_clock.advance(PATIENCE / 2)
    assert not first.is_fresh()


def test_a_redis_that_lost_its_memory_gives_it_to_one_of_them(two: tuple[Lease, Lease]) -> None:
    first, second = two
    assert first.hold()
    redis_client().flushall()
    assert second.hold()
    assert not first.hold()


def test_whoever_takes_it_again_is_not_taken_for_one_that_stands_still(
    two: tuple[Lease, Lease], fixed_clock: Clock
) -> None:
    first, second = two
    for give_up in (first.release, redis_client().flushall):
        assert first.hold()
        assert not second.hold()
        give_up()
        fixed_clock.advance(PATIENCE)
        assert first.hold()
        assert not second.hold()
        first.release()


def test_without_redis_nobody_has_it(two: tuple[Lease, Lease], settings: LazySettings) -> None:
    settings.REDIS_URL = "unix:///nonexistent/redis.sock"
    with pytest.raises(redis.RedisError):
        two[0].hold()


class Machine(RuleBasedStateMachine):
    """Three processes, any of which is frozen and goes on, a Redis that forgets, and a clock."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock(1790000000.0)
        self.before = clock.steady_source
        clock.steady_source = lambda: self.clock.steady
        redis_client().flushall()
        self.leases = [Lease("x", PATIENCE) for _ in range(3)]
        self.known: set[int] = set()  # who has held it since Redis lost its memory

    def teardown(self) -> None:
        clock.steady_source = self.before

    @rule(who=st.integers(0, 2))
    def hold(self, who: int) -> None:
        held = self.leases[who].hold()
        if held:
            # Nobody who held it within its time is put out of it.
            assert [each for each in self.known - {who} if self.leases[each].is_fresh()] == []
            self.known.add(who)

    @rule(who=st.integers(0, 2))
    def release(self, who: int) -> None:
        self.leases[who].release()

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 8.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def redis_forgets(self) -> None:
        self.known.clear()
        redis_client().flushall()

    @invariant()
    def at_most_one_would_keep_it(self) -> None:
        holder = redis_client().hget("lease:x", "holder")
        assert sum(each.me == holder for each in self.leases) <= 1


TestMachine = Machine.TestCase
TestMachine.settings = hypothesis_settings(max_examples=40, stateful_step_count=30)
