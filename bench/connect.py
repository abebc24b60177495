"""Connects against an empty view on the same server, over TLS, everything real: web, control worker, beat, host worker
with WireGuard. Each connect is of another user with a new key, and its answer waits until the host has the peer.
Most have been connected before: each has a static address. Those who connect for the first time are given one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bench import lock_waits
from bench.figures import Figure, spread
from bench.installation import Installation, say
from bench.load import Run, Target, WrongAnswer, drive
from bench.people import EMPTY, allot, found_company, hire, sign
from servers.hostnet.wireguard.choose import choose
from servers.models import Server
from tests.lab import until
from tests.protocol_client import new_wg_key
from wgpeers.models import Connection, State

ROUNDS = 5
CONNECTS, EMPTIES = 200, 600  # requests in one run
WARM_UP = 32
CONNECTIONS = 16  # under way at any time
WITHIN = 60.0


@dataclass(frozen=True, slots=True)
class Rounds:
    """One run of each kind a round."""

    empty: list[Run]
    connects: list[Run]
    first_connects: list[Run]


def measure(directory: Path) -> Iterator[Figure]:
    rounds = run(directory, first_connects=True)
    yield to_empty("connect_to_empty_view", rounds.empty, rounds.connects, bar=0.22)
    yield to_empty("first_connect_to_empty_view", rounds.empty, rounds.first_connects, bar=0.18)
    note = "of all connects, for the one write lock of SQLite"
    yield Figure("connect_longest_lock_wait", 1000 * lock_waits.longest(directory), "ms", 100, at_most=True, note=note)


def run(directory: Path, *, first_connects: bool) -> Rounds:
    """On the database that the settings name. ``first_connects``: in each round also of people without an address."""
    here = Installation(directory)
    here.start_redis()
    here.make_database()
    company = found_company()
    known, new = WARM_UP + ROUNDS * CONNECTS, ROUNDS * CONNECTS if first_connects else 0
    say(f"connect: signing {known + new} connects")
    people = hire(company, known + new)
    allot(company, people[:known])
    signed = sign("POST", [(person, {"wg_public_key": new_wg_key()}) for person in people], int(time.time()))
    known_requests, new_requests = iter(signed[:known]), iter(signed[known:])
    web = _start_everything(here, company.server)
    drive(web, list(islice(known_requests, WARM_UP)), CONNECTIONS)
    rounds = Rounds([], [], [])
    for number in range(1, ROUNDS + 1):
        rounds.empty.append(drive(web, [EMPTY] * EMPTIES, CONNECTIONS))
        rounds.connects.append(drive(web, list(islice(known_requests, CONNECTS)), CONNECTIONS))
        words = f"empty view {rounds.empty[-1].rate:.0f}/s, connects {_words(rounds.connects[-1])}"
        if first_connects:
            rounds.first_connects.append(drive(web, list(islice(new_requests, CONNECTS)), CONNECTIONS))
            words += f", first connects {_words(rounds.first_connects[-1])}"
        say(f"connect: round {number} of {ROUNDS}: {words}")
    _must_be_connected(company.server, known + new)
    return rounds


def _words(run: Run) -> str:
    return f"{run.rate:.0f}/s (median {1000 * run.percentile(50):.0f} ms, longest {1000 * run.percentile(100):.0f} ms)"


def _start_everything(here: Installation, server: Server) -> Target:
    """All programs of bin/run; wait until the host has told the server's key and applied its first state."""
    here.admit(server.attachments.get().host, here.site.var)
    for name in ("host", "control", "beat"):
        here.start(here.program(name))
    web = here.start_web()
    until(lambda: server.attachments.get().host.applied_version > 0, WITHIN)
    return web


def _must_be_connected(server: Server, count: int) -> None:
    """Every connect is open in the database and a peer of the interface."""
    opened = Connection.objects.filter(state=State.OPEN).count()
    peers = len(choose("auto").get(server.interface).peers)
    if (opened, peers) != (count, count):
        raise WrongAnswer(f"{count} connects were confirmed, {opened} are open, and the interface has {peers} peers")


def to_empty(name: str, empty: list[Run], connects: list[Run], *, bar: float) -> Figure:
    ratios = [connect.rate / nothing.rate for connect, nothing in zip(connects, empty, strict=True)]
    note = f"connects/s {spread([run.rate for run in connects])}, empty views/s {spread([run.rate for run in empty])}"
    return Figure(name, statistics.median(ratios), "ratio", bar, at_most=False, note=note)
