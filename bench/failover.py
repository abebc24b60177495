"""From the death of a host until a client's packets flow again by the other one.

Everything is real: a control side, hosts with worker, front and gateway web, and our client on machines of their own.
Two servers, one with a ping each 10 s and one with a ping each 5 s, have two hosts each, and several clients whose
pings are not in step. Again and again the host that they are on is killed (SIGKILL to all of its processes, those of
its tunnels included) or its link is cut, at a random moment; then it comes back, and the next turn is the other one's.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.db import connections

from bench.figures import Figure
from bench.installation import say
from bench.load import WrongAnswer
from tests.conftest import send_celery_to
from tests.failover import Gate, Traffic, World
from tests.lab import Lab, RedisServer
from tests.processes import environment
from vpnproject.runner import files

KILLS = 30  # of each server, every second one a cut link
CLIENTS = 4  # of each server
INTERVALS = (10, 5)
BAR = {10: 13.0, 5: 8.0}
API = "198.51.100.201"
WITHIN = 90.0  # seconds, after which a client is taken to have been lost


def measure(directory: Path) -> Iterator[Figure]:
    files.make_directories(directory)
    call_command("migrate", verbosity=0)
    with contextlib.ExitStack() as closing:
        lab, redis = closing.enter_context(Lab()), closing.enter_context(RedisServer())
        settings.REDIS_URL = redis.url
        send_celery_to(redis.url)
        world = World(lab, redis, environment(), API, closing)
        pairs = [Pair(world, number, interval) for number, interval in enumerate(INTERVALS, start=1)]
        with ThreadPoolExecutor() as pool:
            turns = [pool.submit(pair.run) for pair in pairs]
            for turn in turns:
                turn.result()
        for pair in pairs:
            yield from pair.figures()


class Pair:
    """A server, its two hosts, and its clients."""

    def __init__(self, world: World, number: int, interval: int) -> None:
        self._world = world
        self._interval = interval
        self._random = random.Random()
        server = world.server(number, interval)
        self._gates = [world.add_gate(server) for _ in range(2)]
        peers = [world.hire(server, f"user-{number}-{each}")[1] for each in range(CLIENTS)]
        for peer in peers:
            world.closing.callback(peer.end)
            peer.up()
        for peer in peers:
            world.wait(peer.connected)
        self._traffic = [world.closing.enter_context(Traffic(peer)) for peer in peers]
        say(f"failover: {CLIENTS} clients are connected, with a ping each {interval} s")
        self.took: dict[str, list[float]] = {"killed": [], "cut off": []}

    def run(self) -> None:
        try:
            self._gather()
            for number in range(KILLS):
                self._turn(number)
        finally:
            connections.close_all()

    def _gather(self) -> None:
        """All to one host: the other one is away meanwhile."""
        self._gates[1].cut()
        self._all_by(self._gates[0])
        self._gates[1].mend()

    def _turn(self, number: int) -> None:
        here, there = self._gates if number % 2 == 0 else reversed(self._gates)
        how = "cut off" if (number + number // 2) % 2 else "killed"  # of both hosts as often
        time.sleep(self._random.uniform(0, self._interval))
        began = time.monotonic()
        (Gate.kill if how == "killed" else Gate.cut)(here)
        found = self._all_by(there, began)
        self.took[how] += found
        said = ", ".join(f"{seconds:.1f}" for seconds in found)
        say(f"failover: ping each {self._interval} s, {number + 1} of {KILLS}, {how}: {said} s")
        if how == "killed":
            here.start()
        else:
            here.mend()
        self._world.wait(here.takes_clients)

    def _all_by(self, gate: Gate, since: float = 0.0) -> list[float]:
        """Wait until this host carries everybody's packets; the seconds that took each of them from ``since`` on."""
        by, deadline = gate.machine.address, time.monotonic() + WITHIN
        while not all(each.answers and each.answers[-1][1] == by for each in self._traffic):
            if time.monotonic() > deadline:
                raise WrongAnswer(f"not all clients are on {gate.row.name} after {WITHIN:.0f} s")
            time.sleep(0.1)
        return [next(at for at, who in each.answers if at > since and who == by) - since for each in self._traffic]

    def figures(self) -> Iterator[Figure]:
        for how, took in self.took.items():
            say(f"failover: ping each {self._interval} s, {how}: {distribution(took)}")
        took = [seconds for each in self.took.values() for seconds in each]
        suffix = "" if self._interval == 10 else f"_ping_{self._interval}"
        p95 = statistics.quantiles(took, n=20, method="inclusive")[-1]
        note = f"{KILLS} deaths, {CLIENTS} clients: {distribution(took)}"
        yield Figure(f"failover{suffix}_p95_seconds", p95, "s", BAR[self._interval], at_most=True, note=note)


def distribution(took: list[float]) -> str:
    cuts = statistics.quantiles(took, n=20, method="inclusive")
    return f"p50 {statistics.median(took):.1f} s, p95 {cuts[-1]:.1f} s, max {max(took):.1f} s"
