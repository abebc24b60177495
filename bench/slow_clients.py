"""Pings and connects beside thousands of strangers who hold connections and finish nothing: idle ones, and halves of
TLS handshakes and of requests. The strangers are on the listener that is measured, from 50 addresses; whoever pings and
connects comes from another one. The firewall, which lets only tunnels reach gateway web, is not there."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from bench.figures import Figure, spread
from bench.installation import Installation, say
from bench.load import Run, Target, drive
from bench.people import found_company, hire, open_connections, seem_alive, sign
from tests.factories import HostStandIn
from tests.protocol_client import new_wg_key
from tests.strangers import Here, strangers

PEOPLE = 100
ROUNDS = 3
PINGS, CONNECTS = 600, 150  # in one run
AT_ONCE = 4  # under way at any time
COUNT, SOURCES = 5000, 50


def measure(directory: Path) -> Iterator[Figure]:
    here = Installation(directory)
    here.start_redis()
    here.make_database()
    now = int(time.time())
    company = found_company()
    people = hire(company, PEOPLE + 2 * ROUNDS * CONNECTS)
    keys = open_connections(company, people[:PEOPLE], now)
    say("slow_clients: signing")
    pinging = [
        (person, {"wg_public_key": key, "timestamp": now - 100 + number})
        for number in range(2 * ROUNDS * PINGS // PEOPLE)
        for person, key in zip(people[:PEOPLE], keys, strict=True)
    ]
    pings = sign("PUT", pinging, now)
    connects = sign("POST", [(person, {"wg_public_key": new_wg_key()}) for person in people[PEOPLE:]], now)
    seem_alive(company.host)
    gateway, web = here.start_gateway(), here.start_web(CONFIRM_TIMEOUT="60", PENDING_TIMEOUT="600")
    yield _beside("ping", gateway, pings)
    with HostStandIn(company.host).running():
        yield _beside("connect", web, connects)


def _beside(name: str, target: Target, requests: Sequence[bytes]) -> Figure:
    """Each round without strangers, then with them."""
    remaining, size = iter(requests), len(requests) // (2 * ROUNDS)
    alone: list[Run] = []
    beside: list[Run] = []
    for number in range(1, ROUNDS + 1):
        alone.append(drive(target, list(islice(remaining, size)), AT_ONCE))
        with strangers(Here(), "127.0.0.1", target.port, COUNT, sources=SOURCES, tls=target.tls is not None):
            beside.append(drive(target, list(islice(remaining, size)), AT_ONCE))
        words = f"p99 {_late(alone[-1]):.1f} ms alone, {_late(beside[-1]):.1f} ms with strangers"
        say(f"slow_clients: {name}, round {number} of {ROUNDS}: {words}")
    ratios = [_late(x) / _late(y) for x, y in zip(beside, alone, strict=True)]
    with_them, without = spread([_late(run) for run in beside]), spread([_late(run) for run in alone])
    note = f"p99 ms {with_them} with {COUNT} strangers, {without} without"
    return Figure(f"{name}_p99_with_slow_clients", statistics.median(ratios), "ratio", 2.0, at_most=True, note=note)


def _late(run: Run) -> float:
    return 1000 * run.percentile(99)
