"""When a gateway counts as silent, and when as well again; and that nothing waits for those who do not answer."""

from __future__ import annotations

import dataclasses
import errno
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.hostnet.probes.prober import IN_A_ROW, INTERVAL, LIMIT, MOST_TCP, REPEAT, Health, Prober, Target
from servers.hostnet.state import Interface, Peer, Probe
from tests.servers.hostnet.fakes import state_of

RED = Interface("wgs1", "red", 51820, ("10.9.0.1/24", "fd09::1/64"), 0, False, 360, (), ())
KNOWN_AFTER = INTERVAL + (IN_A_ROW - 1) * INTERVAL + LIMIT  # seconds from the moment of silence, at most


def gateway(name: str, *probes: Probe) -> Peer:
    return Peer(name, 5, f"{name}-key", (f"10.9.0.{len(name)}/32",), ("10.77.0.0/24",), probes)


ICMP = Probe("10.77.0.0/24", "10.77.0.1", 0)
TCP = Probe("10.77.0.0/24", "10.77.0.2", 22)
V6 = Probe("fd77::/64", "fd77::1", 0)
ALICE, BOB = gateway("alice", ICMP), gateway("bob", TCP)


class World:
    """Whom the prober asks, at a time that tests set. ``answers(address)`` is what becomes of a question: True and
    False come at once, None never."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.answers: Callable[[str], bool | None] = lambda _: True
        self.asked: list[tuple[float, str]] = []
        self.open: set[int] = set()
        self.failing: OSError | None = None
        self.said: list[tuple[str, bool]] = []
        self._ready: list[tuple[int, bool]] = []
        self.prober = Prober(self, self, clock=lambda: self.now)

    # As the sockets

    def ask(self, number: int, target: Target) -> bool:
        if self.failing is not None:
            raise self.failing
        self.asked.append((self.now, target.address))
        answer = self.answers(target.address)
        if answer is None:
            self.open.add(number)
        else:
            self._ready.append((number, answer))
        return True

    def wait(self, seconds: float) -> list[tuple[int, bool]]:
        ready, self._ready = self._ready, []
        return ready

    def forget(self, number: int) -> None:
        self.open.discard(number)

    def wake(self) -> None: ...
    def close(self) -> None: ...

    # Time

    def run(self, seconds: float) -> list[tuple[str, bool]]:
        """Let time pass, in the steps that the prober itself asks for; what it would have reported."""
        end = self.now + seconds
        while True:
            wait = self.prober.step()
            self.prober.hear(0)
            if self.now + wait > end:
                self.now = end
                return self.reports()
            self.now += max(wait, 0.001)

    def report(self, kind: str, **fields: Any) -> None:
        """What the thread of reports would call; here they are read from its queue."""
        raise AssertionError("no thread was started")

    def reports(self) -> list[tuple[str, bool]]:
        waiting = self.prober._reports
        taken = [waiting.get() for _ in range(waiting.qsize())]
        return [(report[0].address, report[1]) for report in taken if report is not None]


@pytest.fixture
def world() -> World:
    return World()


def test_three_answers_make_it_well_and_more_say_nothing_new(world: World) -> None:
    world.prober.apply(state_of(dataclasses.replace(RED, peers=(ALICE,))))
    assert world.run(INTERVAL * 1.5) == []
    assert world.run(INTERVAL) == [("10.77.0.1", True)]
    assert world.run(100) == []
    assert len(world.asked) == pytest.approx(100 / INTERVAL, abs=4)


def test_silence_is_reported_once_and_within_ten_seconds(world: World) -> None:
    world.prober.apply(state_of(dataclasses.replace(RED, peers=(ALICE,))))
    world.run(20)
    world.answers = lambda _: None
    assert KNOWN_AFTER <= 10
    assert world.run(KNOWN_AFTER - INTERVAL - 0.1) == []
    assert world.run(INTERVAL + 0.2) == [("10.77.0.1", False)]
    assert world.run(100) == []
    world.answers = lambda _: True
    assert world.run(KNOWN_AFTER) == [("10.77.0.1", True)]
    assert not world.open


def test_now_and_then_a_lost_answer_is_no_silence(world: World) -> None:
    world.prober.apply(state_of(dataclasses.replace(RED, peers=(ALICE,))))
    world.run(20)
    turns = iter([None, None, True] * 30)
    world.answers = lambda _: next(turns)
    assert world.run(80) == []


@given(st.lists(st.booleans(), max_size=40))
def test_a_change_is_three_of_a_kind(answers: list[bool]) -> None:
    """Whatever was answered: what is said last is what the last three of a kind said."""
    health = Health(1)
    for answer in answers:
        if health.take(answer):
            health.said = answer
    three = [a for a, b, c in zip(answers, answers[1:], answers[2:], strict=False) if a == b == c]
    assert health.said == (three[-1] if three else None)


@pytest.mark.parametrize("problem", [errno.ENODEV, errno.ENETUNREACH, errno.EPERM])
def test_what_cannot_be_sent_is_as_good_as_not_answered(world: World, problem: int) -> None:
    world.failing = OSError(problem, "no")
    world.prober.apply(state_of(dataclasses.replace(RED, peers=(ALICE,))))
    assert world.run(KNOWN_AFTER) == [("10.77.0.1", False)]


def test_a_fault_of_the_host_itself_says_nothing_of_the_gateway(world: World) -> None:
    world.failing = OSError(errno.EMFILE, "too many open files")
    world.prober.apply(state_of(dataclasses.replace(RED, peers=(BOB,))))
    assert world.run(60) == []
    world.failing = None
    assert world.run(KNOWN_AFTER) == [("10.77.0.2", True)]


def test_peers_come_and_go_and_what_stays_keeps_what_is_known(world: World) -> None:
    world.prober.apply(state_of(RED))
    assert world.run(10) == []
    world.prober.change(RED, [], [ALICE, BOB, gateway("plain")])
    assert sorted(world.run(10)) == [("10.77.0.1", True), ("10.77.0.2", True)]
    # Altered, as when a network moves to it: in both lists, with the same probe.
    moved = dataclasses.replace(ALICE, networks=())
    world.prober.change(RED, [ALICE], [moved])
    assert world.run(10) == []
    world.asked.clear()
    world.prober.change(RED, [moved], [])
    world.run(10)
    assert {address for _, address in world.asked} == {"10.77.0.2"}
    world.prober.apply(state_of())
    world.asked.clear()
    assert world.run(10) == []
    assert world.asked == []


def test_one_that_is_gone_and_back_at_once_is_asked_no_more_often(world: World) -> None:
    world.prober.apply(state_of(dataclasses.replace(RED, peers=(ALICE,))))
    world.run(5)
    for _ in range(5):
        world.prober.change(RED, [ALICE], [])
        world.run(0.1)
        world.prober.change(RED, [], [ALICE])
        world.run(0.1)
    world.asked.clear()
    world.run(20)
    assert len(world.asked) <= 11


def test_another_connection_of_the_same_gateway_is_reported_anew(world: World) -> None:
    world.prober.apply(state_of(dataclasses.replace(RED, peers=(ALICE,))))
    assert world.run(10) == [("10.77.0.1", True)]
    world.prober.change(RED, [ALICE], [dataclasses.replace(ALICE, connection="alice-2")])
    assert world.run(10) == [("10.77.0.1", True)]


def test_what_is_known_is_said_again_with_a_full_state_but_not_too_often(world: World) -> None:
    full = state_of(dataclasses.replace(RED, peers=(ALICE,)))
    world.prober.apply(full)
    assert world.run(10) == [("10.77.0.1", True)]
    world.prober.apply(full)
    assert world.run(10) == []
    world.run(REPEAT)
    world.prober.apply(full)
    assert world.run(10) == [("10.77.0.1", True)]


def test_it_asks_from_the_gateways_own_address_of_the_same_family(world: World) -> None:
    peer = gateway("carol", ICMP, V6)
    world.prober.apply(state_of(dataclasses.replace(RED, peers=(peer,))))
    world.run(1)
    sources = {target.address: (target.source, target.interface) for target in world.prober._health}
    assert sources == {"10.77.0.1": ("10.9.0.1", "wgs1"), "fd77::1": ("fd09::1", "wgs1")}
    only4 = dataclasses.replace(RED, addresses=("10.9.0.1/24",), peers=(peer,))
    world.prober.apply(state_of(only4))
    world.run(1)
    assert [target.address for target in world.prober._health] == ["10.77.0.1"]


def test_thousands_that_are_silent_hold_up_nobody(world: World) -> None:
    """By ICMP they cost nothing; by TCP only so many are open at once, and those that answer still get their turn."""
    silent = [gateway(f"tcp{n}", Probe("10.0.0.0/8", f"10.1.{n // 250}.{n % 250 + 1}", 80)) for n in range(1000)]
    silent += [gateway(f"icmp{n}", Probe("10.0.0.0/8", f"10.2.{n // 250}.{n % 250 + 1}", 0)) for n in range(2000)]
    world.answers = lambda address: True if address == "10.77.0.1" else None
    world.prober.apply(state_of(dataclasses.replace(RED, peers=(*silent, ALICE))))
    most = 0

    def count(address: str) -> bool | None:
        nonlocal most
        most = max(most, world.prober._open_tcp)
        return True if address == "10.77.0.1" else None

    world.answers = count
    reports = dict(world.run(60))
    assert reports.pop("10.77.0.1") is True
    assert len(reports) == 3000
    assert not any(reports.values())
    assert most <= MOST_TCP
    times = [when for when, address in world.asked if address == "10.77.0.1"]
    assert max(b - a for a, b in itertools.pairwise(times)) < INTERVAL + 0.5
