"""What came of a fleet's storms: phases, rounds, and what follows from them."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.figures import Figure, spread
from bench.fleet_clients import INTERVAL, Told

LARGER = (10_000, 100_000)


@dataclass(frozen=True, slots=True)
class Phase:
    """``processor``: seconds that each program computed, for ``count`` requests in ``seconds``."""

    seconds: float
    count: int
    processor: Mapping[str, float]

    @property
    def rate(self) -> float:
        return self.count / self.seconds

    @property
    def ms(self) -> float:
        """Processor milliseconds of one request, of all programs of the server."""
        return 1000 * sum(self.processor.values()) / max(1, self.count)


@dataclass(frozen=True, slots=True)
class Round:
    """``connects`` and ``pings`` by themselves, then ``storm``: a host's clients connect while the others ping.
    ``alone`` and ``beside`` are the seconds of each ping, before and in the storm. ``generator``: processor seconds of
    those who connected, and of those who pinged."""

    connects: Phase
    pings: Phase
    storm: Phase
    alone: Sequence[float]
    beside: Sequence[float]
    told: Told
    pinging: float

    @property
    def ratio(self) -> float:
        return self.storm.seconds / (self.storm.count / self.connects.rate)

    def words(self) -> str:
        computed = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.storm.processor.items())
        answers = ", ".join(f"{number} of {status or 'none'}" for status, number in sorted(self.told.answers.items()))
        return (
            f"{self.storm.count} clients are back after {self.storm.seconds:.1f} s, {self.ratio:.2f} of what "
            f"{self.connects.rate:.0f} connects/s alone make of it (answers: {answers}); p99 of a ping "
            f"{late_ms([self.beside])} ms, {late_ms([self.alone])} ms before; processor s: "
            f"{computed}; of the load: connects {self.told.processor:.1f}, pings {self.pinging:.1f} in the whole round"
        )


def percentile(seconds: Sequence[float], percent: float = 99) -> float:
    """Raise ``ValueError`` for none."""
    if not seconds:
        raise ValueError("nothing was measured")
    return sorted(seconds)[min(len(seconds) - 1, int(len(seconds) * percent / 100))]


def late_ms(runs: Sequence[Sequence[float]]) -> str:
    """The 99th percentiles of these runs of pings, in words. In a small fleet nobody may have pinged in one."""
    found = [1000 * percentile(run) for run in runs if run]
    return spread(found) if found else "no"


def figure(clients: int, rounds: Sequence[Round]) -> Figure:
    note = (
        f"{clients} clients, {rounds[0].storm.count} back after {spread([each.storm.seconds for each in rounds])} s, "
        f"{spread([each.connects.rate for each in rounds])} connects/s alone; "
        f"p99 of a ping {late_ms([each.beside for each in rounds])} ms in the storm, "
        f"{late_ms([each.alone for each in rounds])} ms before"
    )
    ratio = statistics.median(each.ratio for each in rounds)
    return Figure("storm_to_connect_rate", ratio, "ratio", 1.5, at_most=True, note=note)


def _shares(phases: Sequence[Phase]) -> str:
    """Milliseconds that each program computes for one request, without those of which it is next to nothing."""
    shares = {
        name: statistics.median(1000 * each.processor[name] / max(1, each.count) for each in phases)
        for name in phases[0].processor
    }
    return ", ".join(f"{name} {ms:.2f}" for name, ms in shares.items() if ms >= 0.01)


def costs(rounds: Sequence[Round]) -> Iterator[str]:
    """What one request takes, and what follows for more clients on a machine like this."""
    connect = statistics.median(each.connects.ms for each in rounds)
    ping = statistics.median(each.pings.ms for each in rounds)
    rate = statistics.median(each.connects.rate for each in rounds)
    yield f"processor time of the server: {connect:.1f} ms for a connect, {ping:.2f} ms for a ping"
    yield f"of a connect, ms: {_shares([each.connects for each in rounds])}"
    yield f"of a ping, ms: {_shares([each.pings for each in rounds])}"
    for many in LARGER:
        cores = many / INTERVAL * ping / 1000
        yield (
            f"{many:,} clients: pings take {cores:.1f} cores, and a third of all connects anew within "
            f"{many / 3 / rate:.0f} s on cores like these, {os.cpu_count()} of them, beside the pings"
        )
