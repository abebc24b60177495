"""The sweep of 100 overdue connections among 1,000,000 live ones, against the same among 1,000.

Every live connection has its deadline and its last ping in Redis and its row in the database; so have the overdue
ones. Two installations share one Redis server (a database number each) and are swept in turn.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.db import connection, connections

from bench.figures import Figure, spread
from bench.installation import Installation, say
from bench.load import WrongAnswer
from bench.people import found_company
from core.clock import moment
from core.pace import Pace
from core.redis_store import redis_client
from servers import networks
from tests.factories import Company
from tests.protocol_client import new_wg_key
from wgpeers.lifecycle import liveness, reaper
from wgpeers.models import Connection, State

MANY, FEW = 1_000_000, 1_000
OVERDUE = 100
ROUNDS = 7
SWEPT_WITHIN = 60.0  # seconds

# Rows of live connections as the ORM would write them; a million of them through it would take minutes.
LIVE_ROWS = """
WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < %s)
INSERT INTO wgpeers_connection (public_id, user_name, server_id, server_name, host_id,
    host_name, state, device_id, device_name, platform,
    client_version, wg_public_key, host_part, address, version, created, opened, end_reason,
    device_told)
SELECT printf('live%%020d', n), 'somebody', %s, '', %s, '', 'open', 'device', '', 'linux', '', printf('%%044d', n),
    n + 1000, '10.9.0.9', 1, %s, %s, '', FALSE FROM counter
"""
LIVE_DEADLINES = """
for n = tonumber(ARGV[1]), tonumber(ARGV[2]) do
    local id = string.format('live%020d', n)
    redis.call('ZADD', KEYS[1], tonumber(ARGV[3]) + n % 360, id)
    redis.call('HSET', KEYS[2], id, ARGV[3])
end
"""
FILL_STEP = 50_000


def measure(directory: Path) -> Iterator[Figure]:
    here = Installation(directory)
    here.start_redis()
    say(f"sweep: filling in {MANY:,} and {FEW:,} live connections")
    many, few = _start(directory, 1, MANY), _start(directory, 2, FEW)
    for pipe in (many, few):
        _next(pipe)
    say("sweep: sweeping both in turn")
    took = [(_ask(many), _ask(few)) for _ in range(ROUNDS)]
    ratio = statistics.median(large / small for large, small in took)
    large, small = ([1000 * pair[side] for pair in took] for side in (0, 1))
    note = f"ms for {OVERDUE} overdue: {spread(large)} among {MANY:,}, {spread(small)} among {FEW:,}"
    yield Figure("sweep_1m_to_1k", ratio, "ratio", 2.0, at_most=True, note=note)


def _start(directory: Path, number: int, live: int) -> Pipe:
    """A process with an installation of its own; it says when it is ready, and sweeps when it is asked."""
    connections.close_all()
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    context.Process(target=_serve, args=(theirs, directory, number, live), daemon=True).start()
    theirs.close()
    return ours


def _ask(pipe: Pipe) -> float:
    pipe.send("sweep")
    return _next(pipe)


def _next(pipe: Pipe) -> float:
    seconds: float = pipe.recv()
    return seconds


def _serve(pipe: Pipe, directory: Path, number: int, live: int) -> None:
    connection.settings_dict["NAME"] = directory / f"sweep{number}.sqlite3"
    settings.REDIS_URL = settings.REDIS_URL.replace("db=0", f"db={number}")
    call_command("migrate", verbosity=0)
    company = found_company()
    now = time.time()
    _fill(company, live, now)
    _sweep(company, time.time())  # so that the first one measured is not the first one
    pipe.send(0.0)
    while True:
        pipe.recv()
        pipe.send(_sweep(company, time.time()))


def _fill(company: Company, live: int, now: float) -> None:
    with connection.cursor() as cursor:
        cursor.execute(LIVE_ROWS, [live, company.server.pk, company.host.pk, moment(now), moment(now)])
    for first in range(1, live + 1, FILL_STEP):
        last = min(first + FILL_STEP - 1, live)
        redis_client().eval(LIVE_DEADLINES, 2, liveness.DEADLINES, liveness.PINGS, first, last, int(now) + 3600)
    # The marker is what a sweep looks at first; without it this would be a Redis that lost its memory.
    liveness.refill([])


def _sweep(company: Company, now: float) -> float:
    """Let 100 connections become overdue, and sweep; the seconds it took."""
    rows = Connection.objects.bulk_create(
        Connection(
            user_name="silent",
            server=company.server,
            host=company.host,
            state=State.OPEN,
            device_id="device",
            wg_public_key=new_wg_key(),
            host_part=host_part,
            address=networks.address(company.server.wg_network, host_part),
            created=moment(now - 1000),
            opened=moment(now - 1000),
        )
        for host_part in range(networks.FIRST_HOST_PART, networks.FIRST_HOST_PART + OVERDUE)
    )
    for row in rows:
        liveness.start(row.public_id, now - 1)
    # To its end, and without the pauses for others, of which there are none.
    pace = Pace(pause=lambda _: None, turn=SWEPT_WITHIN)
    began = time.perf_counter()
    ended = reaper.sweep(now, pace)
    took = time.perf_counter() - began
    if ended != OVERDUE:
        raise WrongAnswer(f"the sweep ended {ended} connections instead of {OVERDUE}")
    return took
