"""Connects and pings beside each kind of long work; and the deletion of a server by how much history it has.

web, gateway web, control worker, keys worker and beat are bin/run's; a stand-in confirms the connects, in a process of
its own. An administrator asks for the work at web. What is left of it when enough was measured is thrown away.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from django.db import connections

from bench import processors
from bench.administrator import Administrator
from bench.deletion import deletion
from bench.figures import Figure
from bench.installation import Installation, say
from bench.load import Run, Target, drive
from bench.people import found_company, hire, open_connections, seem_alive, sign
from core.models import Job, JobState
from core.redis_store import redis_client
from servers.models import Address, Host
from tests import long_work
from tests.factories import Company, HostStandIn
from tests.lab import HANGING, until
from tests.long_work import Kind
from tests.protocol_client import Identity, new_wg_key
from users.models import Device, RememberedPass, VpnUser, WrongAttempts
from wgpeers.models import Connection, Decision, ProfileLink, ProfileRevision, SpentKey

COUNT = 5000  # rows of each kind of work
PEOPLE = 100  # who ping
PINGS, CONNECTS = 400, 160  # in one run
AT_ONCE = 4  # under way at any time
# Runs beside each kind, as long as it goes on; and half as many alone before it and after it. Whatever holds up one
# connect holds up all that are under way: 640 of them make a 99th percentile that is not one such moment's.
RUNS = 4
# The others are work of the same kinds: see tests/vpnproject/test_short_transactions.py.
LEFT_OUT = {"enable", "stop servers", "delete host", "sessions over", "unconfirmed", "delete administrator"}
QUIET = 120.0
LOOK, IDLE = 0.3, 0.04  # seconds, and those of a processor in them

Runs = tuple[Run, Run]  # connects, pings


@dataclass(slots=True)
class Load:
    """``pinging``: who has a connection, with its key. ``people``: who have none yet. Requests are signed just before
    they are sent: they are good for some minutes."""

    web: Target
    gateway: Target
    control: int  # the control worker's process
    pinging: list[tuple[Identity, str]]
    people: Iterator[Identity]
    connects: Iterator[bytes] = field(default_factory=lambda: iter(()))
    pings: Iterator[bytes] = field(default_factory=lambda: iter(()))

    @property
    def opened(self) -> Any:
        """The connections that were made while it was measured."""
        keys = [key for _, key in self.pinging]
        return Connection.objects.filter(server__name="Bench").exclude(wg_public_key__in=keys)

    def sign(self, runs: int) -> None:
        now = int(time.time())
        rounds = range(runs * PINGS // len(self.pinging))
        # Each of one person's is newer than the one before.
        newer = [
            (person, {"wg_public_key": key, "timestamp": now - len(rounds) + number})
            for number in rounds
            for person, key in self.pinging
        ]
        new = [(person, {"wg_public_key": new_wg_key()}) for person in islice(self.people, runs * CONNECTS)]
        self.pings, self.connects = iter(sign("PUT", newer, now)), iter(sign("POST", new, now))

    def run(self, times: int, goes_on: Callable[[], bool] = lambda: True) -> Runs:
        """Not more often than ``times``, and at least once: as long as ``goes_on``."""
        connects, pings = list[Run](), list[Run]()
        while not connects or (len(connects) < times and goes_on()):
            connects.append(drive(self.web, list(islice(self.connects, CONNECTS)), AT_ONCE))
            pings.append(drive(self.gateway, list(islice(self.pings, PINGS)), AT_ONCE))
        return _joined(connects), _joined(pings)

    def is_quiet(self) -> bool:
        """Whether the control worker has nothing to do. One that works rests for half of the time."""
        if redis_client().llen("control"):
            return False
        before = self._control_seconds()
        time.sleep(LOOK)
        return self._control_seconds() - before < IDLE

    def _control_seconds(self) -> float:
        return processors.seconds_by_program({"control": self.control})["control"]


def _joined(runs: Sequence[Run]) -> Run:
    return Run(sum(run.seconds for run in runs), [latency for run in runs for latency in run.latencies])


def measure(directory: Path) -> Iterator[Figure]:
    here = Installation(directory)
    here.start_redis()
    here.make_database()
    company = found_company()
    kinds = [kind for kind in long_work.kinds(COUNT) if kind.name not in LEFT_OUT]
    load = _load(here, company, runs=(RUNS + RUNS // 2) * len(kinds) + RUNS)
    administrator = Administrator(load.web)
    seem_alive(company.host)
    with _host(company.host):
        load.sign(RUNS)
        load.run(RUNS // 2)  # everything has been asked once
        alone, beside = [load.run(RUNS // 2)], list[Runs]()
        for number, kind in enumerate(kinds, start=1):
            beside.append(_beside(kind, number, company, load, administrator))
            alone.append(load.run(RUNS // 2))
            say(f"long_work: {kind.name}: {_words(alone[-2:], beside[-1])}")
    for place, name in enumerate(("connect", "ping")):
        # Alone before it and after it: a machine that slows down slows both.
        ratios = [
            _late([run[place]]) / _late([each[place] for each in alone[n : n + 2]]) for n, run in enumerate(beside)
        ]
        fewest = min(len(run[place].latencies) for run in beside)
        each = ", ".join(f"{kind.name} {ratio:.2f}" for kind, ratio in zip(kinds, ratios, strict=True))
        note = f"{each}; of {fewest} at least"
        yield Figure(f"{name}_p99_beside_long_work", max(ratios), "ratio", 2.0, at_most=True, note=note)
    yield deletion(company, administrator)


def _load(here: Installation, company: Company, runs: int) -> Load:
    people = hire(company, PEOPLE + runs * CONNECTS)
    pinging = people[:PEOPLE]
    keys = open_connections(company, pinging, time.time())
    for name in ("control", "keys", "beat"):
        here.start(here.program(name))
    gateway, web = here.start_gateway(), here.start_web(CONFIRM_TIMEOUT="60", PENDING_TIMEOUT="600")
    control = here.running["control"].pid
    return Load(web, gateway, control, list(zip(pinging, keys, strict=True)), iter(people[PEOPLE:]))


@contextmanager
def _host(host: Host) -> Iterator[None]:
    """Whole states of a host with thousands of peers are read beside us, not between two of our requests."""

    def confirm() -> None:
        with HostStandIn(host).running():
            threading.Event().wait()

    connections.close_all()
    process = multiprocessing.get_context("fork").Process(target=confirm, daemon=True)
    process.start()
    yield
    process.terminate()


def _beside(kind: Kind, number: int, company: Company, load: Load, administrator: Administrator) -> Runs:
    branch = long_work.branch_of(company, number)
    kind.prepare(branch, COUNT)
    load.sign(RUNS + RUNS // 2)
    until(load.is_quiet, QUIET)
    seem_alive(company.host)
    with _going_on(kind, branch, administrator):
        beside = load.run(RUNS, lambda: kind.name == "preview" or kind.goes_on(branch))
    _throw_away(branch, load)
    return beside


def _words(alone: Sequence[Runs], beside: Runs) -> str:
    pairs = [(_late([run[place] for run in alone]), _late([beside[place]])) for place in (0, 1)]
    connect, ping = (f"{without:.1f} -> {with_it:.1f} ms" for without, with_it in pairs)
    return f"p99 of {len(beside[0].latencies)} connects {connect}, of {len(beside[1].latencies)} pings {ping}"


@contextmanager
def _going_on(kind: Kind, branch: Company, administrator: Administrator) -> Iterator[None]:
    """Asked for beside us. What is over with the answer is asked for again and again."""
    over = threading.Event()
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            kind.ask(administrator, branch)
            while kind.name == "preview" and not over.is_set():
                kind.ask(administrator, branch)
        except BaseException as error:
            failed.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=ask)
    thread.start()
    until(lambda: kind.name == "preview" or not thread.is_alive() or _is_begun(), HANGING)
    yield
    over.set()
    thread.join()
    if failed:
        raise failed[0]


def _is_begun() -> bool:
    return Job.objects.filter(state=JobState.QUEUED).exists()


def _late(runs: Sequence[Run]) -> float:
    """The 99th percentile of all of them, in milliseconds."""
    return 1000 * Run(0.0, [latency for run in runs for latency in run.latencies]).percentile(99)


def _throw_away(branch: Company, load: Load) -> None:
    """Nothing of it is to be work for anybody beside the next kind."""
    Job.objects.filter(state=JobState.QUEUED).update(state=JobState.STOPPED)
    redis_client().delete("keys")
    people = VpnUser.objects.filter(organization=branch.organization.pk)
    hanging: list[Any] = [Device, RememberedPass, WrongAttempts, ProfileLink, ProfileRevision]
    for model in hanging:
        _erase(model.objects.filter(user__in=people.values("pk")))
    _erase(VpnUser.groups.through.objects.filter(vpnuser__in=people.values("pk")))
    for rows in (Connection, Address):
        _erase(rows.objects.filter(server=branch.server.pk))
    _erase(people)
    _erase(Decision.objects.filter(code="-"))
    # As many are connected beside the last kind as beside the first.
    _erase(SpentKey.objects.filter(connection__in=load.opened.values("pk")))
    _erase(load.opened)
    until(load.is_quiet, QUIET)


def _erase(rows: Any) -> None:
    rows.order_by()._raw_delete("default")
