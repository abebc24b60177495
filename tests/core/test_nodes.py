"""Which control nodes there are, and whose clock may judge."""

from __future__ import annotations

import pytest

from core import nodes
from core.redis_store import redis_client
from tests.conftest import Clock


def appear(fixed_clock: Clock, *ahead: float) -> None:
    """Nodes "0", "1", ..., with clocks that are ahead by so much."""
    now = fixed_clock.now
    for number, seconds in enumerate(ahead):
        fixed_clock.now = now + seconds
        nodes.appear(redis_client(), f"node-{number}", str(number))
    fixed_clock.now = now


def agreeing(fixed_clock: Clock, *ahead: float) -> list[int]:
    appear(fixed_clock, *ahead)
    found, now = [], fixed_clock.now
    for number, seconds in enumerate(ahead):
        fixed_clock.now = now + seconds
        if nodes.agrees(redis_client(), str(number)):
            found.append(number)
    fixed_clock.now = now
    return found


def test_they_are_there_until_they_say_nothing_any_more(fixed_clock: Clock) -> None:
    appear(fixed_clock, 0, 0)
    assert [node.label for node in nodes.living(redis_client())] == ["node-0", "node-1"]
    assert 0 < redis_client().ttl("node:0") <= nodes.STAYS
    redis_client().delete("node:0")  # as it does by itself
    assert [node.name for node in nodes.living(redis_client())] == ["1"]
    assert redis_client().smembers("nodes") == {"1"}


def test_a_node_by_itself_agrees_with_itself_whatever_its_clock_says(fixed_clock: Clock) -> None:
    assert nodes.agrees(redis_client())
    assert agreeing(fixed_clock, 86400) == [0]


@pytest.mark.parametrize(
    ("ahead", "may_judge"),
    [
        ((0, 0), [0, 1]),
        ((0, 55), [0, 1]),
        ((0, 3600), []),
        ((0, 0, 3600), [0, 1]),
        ((-3600, 0, 0), [1, 2]),
        ((0, 3600, 7200), []),
        ((0, 0, 3600, 3600), []),
        ((0, 0, 0, 3600, 3600), [0, 1, 2]),
    ],
)
def test_a_clock_that_most_of_them_do_not_share_judges_nobody(
    fixed_clock: Clock, ahead: tuple[float, ...], may_judge: list[int]
) -> None:
    assert agreeing(fixed_clock, *ahead) == may_judge
