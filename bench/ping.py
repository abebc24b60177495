"""Pings against an empty view on the same server, and pings while 50 connects wait beside them.

A round is a run of the empty view, a run of pings, and a run of pings while the connects wait: neighbours in time are
compared with each other, so that what else the machine does falls on both.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from bench.figures import Figure, spread
from bench.installation import Installation, say
from bench.load import Run, Target, WrongAnswer, drive, exchange
from bench.people import EMPTY, found_company, hire, open_connections, seem_alive, sign
from core.redis_store import redis_client
from servers.models import Host
from tests.factories import HostStandIn
from tests.lab import until
from tests.protocol_client import Identity, new_wg_key
from vpnproject.runner.programs import WEB_PROCESSES, WEB_THREADS
from wgpeers.lifecycle import liveness

PEOPLE = 200
ROUNDS = 11  # the ratio of one round is off by a tenth either way
REQUESTS = 1000  # in one run
CONNECTIONS = 8  # under way at any time
WAITING = 50


def measure(directory: Path) -> Iterator[Figure]:
    here = Installation(directory)
    here.start_redis()
    here.make_database()
    now = int(time.time())
    company = found_company()
    people = hire(company, PEOPLE + WAITING * ROUNDS)
    keys = open_connections(company, people[:PEOPLE], now)
    count = PEOPLE + 2 * ROUNDS * REQUESTS
    say(f"ping: signing {count} pings")
    pings = iter(_growing(people[:PEOPLE], keys, count, now))
    connects = iter(sign("POST", [(person, {"wg_public_key": new_wg_key()}) for person in people[PEOPLE:]], now))
    gateway = here.start_gateway()
    web = here.start_web(CONFIRM_TIMEOUT="60", PENDING_TIMEOUT="600")
    drive(gateway, list(islice(pings, PEOPLE)), CONNECTIONS)  # every user's keys have been parsed once
    empty, alone, beside = [], [], []
    for number in range(1, ROUNDS + 1):
        empty.append(drive(gateway, [EMPTY] * REQUESTS, CONNECTIONS))
        alone.append(drive(gateway, list(islice(pings, REQUESTS)), CONNECTIONS))
        with _waiting(company.host, web, list(islice(connects, WAITING))):
            beside.append(drive(gateway, list(islice(pings, REQUESTS)), CONNECTIONS))
        say(
            f"ping: round {number} of {ROUNDS}: empty view {empty[-1].rate:.0f}/s, {_words(alone[-1])}; "
            f"with {WAITING} connects waiting {_words(beside[-1])}"
        )
    _must_have_counted(len(keys), now)
    yield _to_empty(empty, alone)
    yield _beside(alone, beside)


def _growing(people: Sequence[Identity], keys: Sequence[str], count: int, now: int) -> list[bytes]:
    """Pings of all people in turn, each person's with growing timestamps, so that every single one counts."""
    first = now - count // len(people)
    wanted = [
        (people[n % len(people)], {"wg_public_key": keys[n % len(people)], "timestamp": first + n // len(people)})
        for n in range(count)
    ]
    return sign("PUT", wanted, now)


@contextmanager
def _waiting(host: Host, web: Target, connects: Sequence[bytes]) -> Iterator[None]:
    """All of ``connects`` wait for a host that lives and says nothing; in the end it confirms them all."""
    seem_alive(host)
    answers: list[bytes] = []
    threads = [
        threading.Thread(target=lambda request=request: answers.append(exchange(web, request)), daemon=True)
        for request in connects
    ]
    for thread in threads:
        thread.start()
    at_once = min(len(connects), WEB_PROCESSES * WEB_THREADS)
    until(lambda: answers or redis_client().llen(host.queue) == at_once, timeout=30)
    yield
    if answers:
        raise WrongAnswer(f"{len(answers)} connects did not wait, for example {answers[0][-200:]!r}")
    with HostStandIn(host).running():
        for thread in threads:
            thread.join()
    if not all(answer.startswith(b"HTTP/1.1 200") for answer in answers):
        raise WrongAnswer("a connect that waited was refused")


def _must_have_counted(people: int, now: int) -> None:
    """Every person's last ping was accepted: it is the one that counts now."""
    # A ping is written within a moment.
    until(lambda: len(set(redis_client().hvals(liveness.PINGS))) == 1, timeout=30)
    last = {int(text) for text in redis_client().hvals(liveness.PINGS)}
    if len(last) != 1 or redis_client().hlen(liveness.PINGS) != people or last == {now}:
        raise WrongAnswer(
            f"{people} people pinged, and Redis holds {redis_client().hlen(liveness.PINGS)} times: {last}"
        )


def _words(run: Run) -> str:
    return f"{run.rate:.0f} pings/s, p99 {1000 * run.percentile(99):.1f} ms"


def _to_empty(empty: Sequence[Run], pings: Sequence[Run]) -> Figure:
    ratios = [ping.rate / nothing.rate for ping, nothing in zip(pings, empty, strict=True)]
    note = f"pings/s {spread([run.rate for run in pings])}, empty views/s {spread([run.rate for run in empty])}"
    return Figure("ping_to_empty_view", statistics.median(ratios), "ratio", 0.5, at_most=False, note=note)


def _beside(alone: Sequence[Run], beside: Sequence[Run]) -> Figure:
    late = [1000 * run.percentile(99) for run in beside]
    usual = [1000 * run.percentile(99) for run in alone]
    ratio = statistics.median(x / y for x, y in zip(late, usual, strict=True))
    note = f"p99 ms {spread(late)} with {WAITING} connects waiting, {spread(usual)} without"
    return Figure("ping_p99_with_waiting_connects", ratio, "ratio", 2.0, at_most=True, note=note)
