"""Two control nodes on one database and one Redis: two beats, of which one beats, and two workers that share the work.
Either node may die at any time."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from core import leases, nodes
from core.redis_store import redis_client
from tests.connection_rows import many, with_fresh_marker
from tests.factories import Company, found, revive
from tests.lab import HANGING, PROJECT, ended_afterwards, until
from tests.processes import environment
from vpnproject.runner import programs
from wgpeers.lifecycle import liveness
from wgpeers.models import Connection, Decision, State

QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")


@dataclass
class Node:
    """The control side's processes of one machine."""

    name: str
    directory: Path
    redis_url: str
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, closing: contextlib.ExitStack) -> None:
        celery = (sys.executable, "-m", "celery", "--app", "vpnproject")
        pool = ("-Q", "control", "--pool", "threads", "-c", "2", *QUIET)
        self._start(closing, "worker", *celery, "worker", "-n", "control@%h", *pool)
        self._start(closing, "beat", *programs.beat(Path(sys.executable)))

    def _start(self, closing: contextlib.ExitStack, name: str, *command: str) -> None:
        env = {**os.environ, **environment(), "REDIS_URL": self.redis_url, "VPN_INSTANCE": self.name}
        # As on a machine of its own.
        alone = ("unshare", "--uts", "sh", "-c", f'hostname {self.name}; exec "$@"', "sh")
        with (self.directory / f"{self.name}-{name}.log").open("wb") as log:
            process = subprocess.Popen([*alone, *command], cwd=PROJECT, env=env, stdout=log, stderr=subprocess.STDOUT)
        self.processes[name] = closing.enter_context(ended_afterwards(process))

    def die(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait(HANGING)

    def works(self) -> bool:
        """Whether its worker has ended a task since this was asked for the first time."""
        return bool(redis_client().hget(f"signs:{self.name}", "control"))


@pytest.fixture
def company(transactional_db: None) -> Company:
    company = found()
    with_fresh_marker()
    return company


@pytest.fixture
def two(company: Company, redis_url: str, tmp_path: Path) -> Iterator[list[Node]]:
    made = [Node(name, tmp_path, redis_url) for name in ("one", "two")]
    with contextlib.ExitStack() as closing:
        for node in made:
            node.start(closing)
        try:
            until(lambda: all(node.works() for node in made), every=0.1)
            yield made
        except BaseException:
            for path in tmp_path.glob("*.log"):
                print(path.name, path.read_text()[-2000:])
            raise


def beats() -> str:
    found = leases.holder("beat")
    return found.label if found else ""


def make_overdue(rows: list[Connection]) -> None:
    redis_client().zadd(liveness.DEADLINES, {row.public_id: time.time() - 1 for row in rows})


def all_ended(rows: list[Connection]) -> bool:
    return not Connection.objects.filter(pk__in=[row.pk for row in rows]).exclude(state=State.ENDED).exists()


def test_both_work_one_beats_and_the_death_of_either_is_made_up_for(company: Company, two: list[Node]) -> None:
    # Each node's beat says that it is there, and it may start after the worker.
    until(lambda: {node.label for node in nodes.living(redis_client())} == {"one", "two"}, every=0.1)
    until(beats)
    rows = many_now(company, 40)
    make_overdue(rows[:20])
    until(lambda: all_ended(rows[:20]), every=0.1)

    dead = next(node for node in two if node.name == beats())
    dead.die()
    began = time.monotonic()
    make_overdue(rows[20:])
    until(lambda: beats() not in ("", dead.name), every=0.05)
    print(f"another node beats after {time.monotonic() - began:.1f} s")
    until(lambda: all_ended(rows[20:]), every=0.1)
    print(f"what was overdue is revoked after {time.monotonic() - began:.1f} s")
    assert Decision.objects.filter(code="silent").count() == len(rows)  # each once


def many_now(company: Company, count: int) -> list[Connection]:
    revive(company.host)
    rows = many(company, count)
    redis_client().zadd(liveness.DEADLINES, {row.public_id: time.time() + 3600 for row in rows})
    return rows
