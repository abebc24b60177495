"""Who has waited for long in a storm is told when to come again: each in turn, in time, and nobody for ever."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wgpeer import constants as client

from vpnproject.settings import CONNECT_PATIENCE as PATIENCE
from wgpeers.lifecycle.turns import LONGEST, SOONEST, Turns

PROCESSES = 4
TO_TELL = 0.003  # seconds of a process for one that is told to come again
EXISTING_PAUSE = 7.0  # of clients that read nothing of what they are told


@dataclass
class Storm:
    """Clients of ``wgpeer``, and a share of existing ones, that all come within half a second to a server that serves
    ``rate`` a second. ``told``: how often each was told to come again."""

    clients: int
    rate: float
    chance: random.Random
    existing: float = 0.0
    now: float = 0.0
    told: list[int] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    _events: list[tuple[float, int, int | None]] = field(default_factory=list)
    _count: Iterator[int] = field(default_factory=count)

    def seconds(self) -> float:
        """Until all are served."""
        self.told = [0] * self.clients
        for number in range(self.clients):
            self._at(self.chance.random() / 2, number)
        turns = [Turns(lambda: self.now) for _ in range(PROCESSES)]
        idle, queue, served, last = list(turns), deque[tuple[int, float]](), 0, 0.0
        busy: dict[int, Turns] = {}
        while served < self.clients:
            self.now, event, comes = heapq.heappop(self._events)
            if comes is None:
                idle.append(busy.pop(event))
            else:
                queue.append((comes, self.now))
            while idle and queue:
                process = idle.pop(self.chance.randrange(len(idle)))
                took = self._take(process, *queue.popleft())
                served += took > TO_TELL
                last = max(last, self.now + took)
                busy[self._at(self.now + took)] = process
        return last

    def _take(self, process: Turns, number: int, since: float) -> float:
        """How long the process is busy with the client."""
        if not (pause := process.come_again(self.now - since)):
            assert self.now - since < client.RESPONSE_TIMEOUT
            return PROCESSES / self.rate * self.chance.uniform(0.5, 1.5)
        self.told[number] += 1
        self.asked.append(pause)
        least = client.ROUND_PAUSE * (1 + client.ROUND_JITTER * (self.chance.random() - 0.5))
        honest = max(pause * (1 + client.ASKED_JITTER * self.chance.random()), least)
        self._at(self.now + (EXISTING_PAUSE if number < self.existing * self.clients else honest), number)
        return TO_TELL

    def _at(self, moment: float, number: int | None = None) -> int:
        """Its own number in the order of events."""
        event = next(self._count)
        heapq.heappush(self._events, (moment, event, number))
        return event


@given(
    clients=st.integers(1, 4000),
    rate=st.floats(20, 200),
    existing=st.sampled_from([0.0, 0.0, 0.5]),
    chance=st.randoms(use_true_random=False),
)
def test_everybody_is_served_and_the_machine_is_hardly_ever_idle(
    clients: int, rate: float, existing: float, chance: random.Random
) -> None:
    storm = Storm(clients, rate, random.Random(chance.random()), existing)
    alone = clients / rate
    # Nothing is lost until the first are told: then until these come again, and until the last of them has.
    assert storm.seconds() <= 1.15 * alone + (11 if max(storm.told) else 1)
    assert max(storm.told) <= 2 + alone / PATIENCE
    assert all(SOONEST <= pause <= LONGEST for pause in storm.asked)


@pytest.mark.parametrize(("clients", "rate"), [(1000, 35.0), (3000, 70.0), (3000, 40.0), (6000, 40.0)])
def test_few_come_again_in_vain(clients: int, rate: float) -> None:
    """By pauses of some seconds at random, 6,000 were told 12,000 times."""
    storm = Storm(clients, rate, random.Random(1))
    assert storm.seconds() <= 1.3 * clients / rate
    assert sum(storm.told) <= 1.2 * clients


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 60)), max_size=300))
def test_a_pause_is_given_to_who_waited_long_and_to_nobody_else(steps: list[tuple[float, float]]) -> None:
    now = 0.0
    turns = Turns(lambda: now)
    for passed, waited in steps:
        now += passed
        pause = turns.come_again(waited)
        assert SOONEST <= pause <= LONGEST if waited > PATIENCE else pause == 0


@given(st.lists(st.floats(0, 2), min_size=2, max_size=500))
def test_who_was_told_first_has_the_earlier_turn(passed: list[float]) -> None:
    """However many are told, and whatever time passes between them."""
    now, turn = 0.0, list[float]()
    turns = Turns(lambda: now)
    for seconds in passed:
        now += seconds
        turn.append(now + turns.come_again(PATIENCE + 1))
    # A pause is in whole seconds, rounded up; the longest one is the same for all.
    assert all(later > earlier - 1 for earlier, later in pairwise(turn))


def test_pauses_grow_with_those_who_were_told_before_up_to_the_longest_and_begin_anew() -> None:
    now = 0.0
    turns = Turns(lambda: now)
    for _ in range(50):  # ten a second
        turns.come_again(0)
        now += 0.1
    pauses = [turns.come_again(PATIENCE + 1) for _ in range(5000)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[98], pauses[-1]) == (3, 8, LONGEST)
    now += LONGEST  # all of them have come
    assert turns.come_again(PATIENCE + 1) == 3
