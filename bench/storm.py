"""Pings while everybody connects at once, as when a host has died: the 99th percentile of their latency against the
same without. Pings come at a steady pace, connects as fast as they are answered; a stand-in confirms them.

Those who connect are another process, so that what they compute holds up nobody who pings.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from django.db import connections

from bench import processors
from bench.figures import Figure, spread
from bench.installation import Installation, say
from bench.load import Run, Target, WrongAnswer, drive, exchange
from bench.people import found_company, hire, open_connections, seem_alive, sign
from core.redis_store import redis_client
from servers.models import Host
from tests.factories import HostStandIn
from tests.protocol_client import new_wg_key

ROUNDS = 7
PINGS, PACE = 600, 0.004  # of one run, and seconds between the end of one and the next, for each of those under way
UNDER_WAY = 2
PASSED = ("front", "gateway")  # by each ping
CONNECTS, AT_ONCE = 250, 60  # of one run; less than a source may have, and many times what web takes at once


def measure(directory: Path) -> Iterator[Figure]:
    here = Installation(directory)
    here.start_redis()
    here.make_database()
    now = int(time.time())
    company = found_company()
    people = hire(company, UNDER_WAY + ROUNDS * CONNECTS)
    those_who_ping, others = people[:UNDER_WAY], people[UNDER_WAY:]
    keys = open_connections(company, those_who_ping, now)
    say(f"storm: signing {len(others)} connects and {2 * ROUNDS * PINGS} pings")
    wanted = [
        (those_who_ping[n % UNDER_WAY], {"wg_public_key": keys[n % UNDER_WAY]}) for n in range(2 * ROUNDS * PINGS)
    ]
    pings = iter(sign("PUT", wanted, now))
    connects = iter(sign("POST", [(person, {"wg_public_key": new_wg_key()}) for person in others], now))
    # A connect that is told to come again would end the benchmark, and how long one takes is not asked here.
    gateway, web = (
        here.start_gateway(),
        here.start_web(CONFIRM_TIMEOUT="50", PENDING_TIMEOUT="600", CONNECT_PATIENCE="60"),
    )
    seem_alive(company.host)
    roots = {name: here.running[name].pid for name in PASSED}
    alone, beside, rates = [], [], []
    for number in range(1, ROUNDS + 1):
        alone.append(_pinged(gateway, list(islice(pings, PINGS))))
        storm = Storm(web, list(islice(connects, CONNECTS)), company.host)
        before = _used(roots)
        beside.append(_pinged(gateway, list(islice(pings, PINGS))))
        used = _used_words(before, _used(roots))
        rates.append(storm.rate())
        words = f"{_words(alone[-1])}; {_words(beside[-1])} with {rates[-1]:.0f} connects/s, {used}"
        say(f"storm: round {number} of {ROUNDS}: {words}")
    usual, late = ([1000 * run.percentile(99) for run in runs] for runs in (alone, beside))
    ratio = statistics.median(x / y for x, y in zip(late, usual, strict=True))
    note = f"p99 ms {spread(late)} while {spread(rates)} connects/s were answered, {spread(usual)} without"
    yield Figure("ping_p99_in_a_storm", ratio, "ratio", 2.0, at_most=True, note=note)


class Storm:
    """Connects in a process of their own, from now on."""

    def __init__(self, web: Target, requests: list[bytes], host: Host) -> None:
        connections.close_all()  # a child must not share the database with us
        context = multiprocessing.get_context("fork")
        self._rate = context.SimpleQueue()
        self._process = context.Process(target=self._run, args=(web, requests, host), daemon=True)
        self._process.start()

    def _run(self, web: Target, requests: list[bytes], host: Host) -> None:
        os.nice(15)  # in earnest they compute on machines of their own
        redis_client().connection_pool.reset()
        with HostStandIn(host).running():
            self._rate.put(drive(web, requests, AT_ONCE).rate)

    def rate(self) -> float:
        """Connects a second, once all have been answered."""
        self._process.join()
        if self._process.exitcode or self._rate.empty():
            raise WrongAnswer("a connect was refused")
        return float(self._rate.get())


def _pinged(gateway: Target, requests: Sequence[bytes]) -> Run:
    """``requests`` at their pace, as in earnest: not as fast as they are answered."""
    shares = [list(requests[number::UNDER_WAY]) for number in range(UNDER_WAY)]
    latencies: list[float] = []
    wrong: list[bytes] = []

    def send(share: list[bytes]) -> None:
        for request in share:
            began = time.perf_counter()
            answer = exchange(gateway, request)
            latencies.append(time.perf_counter() - began)
            if not answer.startswith(b"HTTP/1.1 200"):
                wrong.append(answer)
            time.sleep(PACE)

    threads = [threading.Thread(target=send, args=[share], daemon=True) for share in shares]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong or len(latencies) != len(requests):
        raise WrongAnswer(f"a ping was not answered: {wrong[:1]}")
    return Run(time.perf_counter() - began, latencies)


def _used(roots: Mapping[str, int]) -> dict[str, tuple[float, float]]:
    """Of each program: seconds that it computed, and that it waited for a processor."""
    computed, waited = processors.seconds_by_program(roots), processors.waited_by_program(roots)
    return {name: (computed[name], waited[name]) for name in roots}


def _used_words(before: Mapping[str, tuple[float, float]], after: Mapping[str, tuple[float, float]]) -> str:
    """The same of what was used in between, for each ping."""
    said = []
    for name, (computed, waited) in after.items():
        own, lost = (1000 * (now - was) / PINGS for now, was in zip((computed, waited), before[name], strict=True))
        said.append(f"{name} computed {own:.1f} ms and waited {lost:.1f} ms for a processor")
    return "for each ping " + ", ".join(said)


def _words(run: Run) -> str:
    return f"p50 {1000 * run.percentile(50):.1f} ms, p99 {1000 * run.percentile(99):.1f} ms"
