"""What a connect costs by the number of hosts of its server: with 20, of which 19 only take their messages, against
with 2. Each other host is told of each client; a connect does not wait for that, but the machine does the work.

Everything is real: web, control worker, beat, and a host worker that puts each peer into WireGuard. The others are rows
with heartbeats, whose queues are emptied. What is compared is processor time of all programs of ours together, for how
long something takes says more about what else the machine does.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from bench import mesh_apply, processors
from bench.figures import Figure, spread
from bench.installation import Installation, say
from bench.load import Target, WrongAnswer, drive
from bench.people import allot, found_company, hire, seem_alive, sign
from core.redis_store import redis_client
from servers.models import Host, ServerHost
from tests.factories import Company
from tests.lab import until
from tests.protocol_client import new_wg_key
from wgpeers.fleet import remotes
from wgpeers.models import Connection, State

FEW, MANY = 2, 20  # hosts
ROUNDS, CONNECTS, WARM_UP = 5, 150, 32
CONNECTIONS = 16  # under way at any time
WITHIN = 60.0


def measure(directory: Path) -> Iterator[Figure]:
    here = Installation(directory)
    here.start_redis()
    here.make_database()
    company = found_company()
    count = WARM_UP + 2 * ROUNDS * CONNECTS
    say(f"mesh: signing {count} connects")
    people = hire(company, count)
    allot(company, people)
    fields = [(person, {"wg_public_key": new_wg_key()}) for person in people]
    requests = iter(sign("POST", fields, int(time.time())))
    here.admit(company.host, here.site.var)
    running = [here.start(here.program(name)) for name in ("host", "control", "beat")]
    web = here.start_web()
    until(lambda: company.server.attachments.get(host=company.host).host.applied_version > 0, WITHIN)
    sinks = Sinks(company)
    drive(web, list(islice(requests, WARM_UP)), CONNECTIONS)
    found: dict[int, list[float]] = {FEW: [], MANY: []}
    told: dict[int, list[float]] = {FEW: [], MANY: []}
    for number in range(1, ROUNDS + 1):
        for hosts in (FEW, MANY):
            sinks.attach(hosts - 1)
            cost, messages = _round(web, list(islice(requests, CONNECTS)), sinks)
            found[hosts].append(cost)
            told[hosts].append(messages)
        costs = ", ".join(f"{cost[-1]:.1f} ms with {hosts} hosts" for hosts, cost in found.items())
        say(f"mesh: round {number} of {ROUNDS}: {costs}")
    _must_be_connected(count)
    assert all(process.poll() is None for process in running)
    ratios = [many / few for few, many in zip(found[FEW], found[MANY], strict=True)]
    note = (
        f"processor ms of a connect: {spread(found[MANY])} with {MANY} hosts, {spread(found[FEW])} with {FEW}; "
        f"messages to each other host for a connect: {statistics.median(told[MANY]):.2f}"
    )
    yield Figure("connect_20_hosts_to_2", statistics.median(ratios), "ratio", 1.5, at_most=True, note=note)
    yield from mesh_apply.measure(directory)


class Sinks:
    """Hosts that are up and get no clients of their own: they are to be sent what others' hosts are sent."""

    def __init__(self, company: Company) -> None:
        self._server = company.server
        self.taken = 0
        self.count = 0
        self._all = [
            Host.objects.create(name=f"sink-{number}", public_address="192.0.2.9", draining=True)
            for number in range(MANY - 1)
        ]
        for host in self._all:
            seem_alive(host)
        threading.Thread(target=self._run, daemon=True).start()

    def attach(self, count: int) -> None:
        """Have so many of them carry the server. Past the models, which would send each host its full state again."""
        attached = ServerHost.objects.filter(host__in=self._all)
        attached._raw_delete(attached.db)
        rows = [ServerHost(server=self._server, host=host, public_key=new_wg_key()) for host in self._all[:count]]
        ServerHost.objects.bulk_create(rows)
        self.count = count

    def settled(self) -> bool:
        """Whether everybody has been told of everything."""
        waiting = redis_client().scard(remotes.CHANGED) + redis_client().llen("control")
        return not waiting and not any(redis_client().llen(host.queue) for host in self._all)

    def _run(self) -> None:
        while True:
            for host in self._all:
                popped = redis_client().lpop(host.queue, 1000)
                self.taken += sum('"hostnet.add_remotes"' in str(text) for text in popped or ())
            time.sleep(0.05)


def _round(web: Target, requests: list[bytes], sinks: Sinks) -> tuple[float, float]:
    """Processor milliseconds for each connect, and messages that each other host got for it."""
    before, taken = processors.seconds_of_others(), sinks.taken
    drive(web, requests, CONNECTIONS)
    until(sinks.settled, WITHIN)
    cost = 1000 * (processors.seconds_of_others() - before) / len(requests)
    return cost, (sinks.taken - taken) / len(requests) / sinks.count


def _must_be_connected(count: int) -> None:
    opened = Connection.objects.filter(state=State.OPEN).count()
    if opened != count:
        raise WrongAnswer(f"{count} connects were confirmed, {opened} are open")
