"""Connects against an empty view on the same server, over TLS, everything real: web, control worker, beat, host worker
with WireGuard. Each connect is of another user with a new key, and its answer waits until the host has the peer.
They have been connected before: each has a static address."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

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


def measure(directory: Path) -> Iterator[Figure]:
    here = Installation(directory)
    here.start_redis()
    here.make_database()
    company = found_company()
    count = WARM_UP + ROUNDS * CONNECTS
    say(f"connect: signing {count} connects")
    people = hire(company, count)
    allot(company, people)
    requests = iter(sign("POST", [(person, {"wg_public_key": new_wg_key()}) for person in people], int(time.time())))
    web = _start_everything(here, company.server)
    drive(web, list(islice(requests, WARM_UP)), CONNECTIONS)
    empty, connects = [], []
    for number in range(1, ROUNDS + 1):
        empty.append(drive(web, [EMPTY] * EMPTIES, CONNECTIONS))
        connects.append(drive(web, list(islice(requests, CONNECTS)), CONNECTIONS))
        say(
            f"connect: round {number} of {ROUNDS}: empty view {empty[-1].rate:.0f}/s, "
            f"{connects[-1].rate:.0f} connects/s, median {1000 * connects[-1].percentile(50):.0f} ms"
        )
    _must_be_connected(company.server, count)
    yield _to_empty(empty, connects)


def _start_everything(here: Installation, server: Server) -> Target:
    """All programs of bin/run; wait until the host has told the server's key and applied its first state."""
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


def _to_empty(empty: list[Run], connects: list[Run]) -> Figure:
    ratios = [connect.rate / nothing.rate for connect, nothing in zip(connects, empty, strict=True)]
    note = f"connects/s {spread([run.rate for run in connects])}, empty views/s {spread([run.rate for run in empty])}"
    return Figure("connect_to_empty_view", statistics.median(ratios), "ratio", 0.1, at_most=False, note=note)
