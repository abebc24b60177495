"""What bin/run takes to hang, and what it does not."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import redis

from core import signs as noted
from tests.lab import HANGING, NEVER, RedisServer, until
from vpnproject.runner import processes, programs
from vpnproject.runner.signs import FRONT_TIMES, Activity, Signs, _answers
from vpnproject.runner.supervise import State
from vpnproject.runner.vigil import FORGIVEN_AFTER, LONGEST_LOOK, LONGEST_PATIENCE, PATIENCE, Vigil

STEP = 5.0


@dataclass
class Shown:
    """Signs as they are set; ``counts`` go on by themselves but for those of ``still``."""

    own_redis: bool = True
    redis_is: bool | None = True
    takes: bool = True
    still: set[str] = field(default_factory=set)
    mute: set[str] = field(default_factory=set)
    database_is: bool = True
    nodes_are: int = 1
    looks: int = 0
    asked: int = 0

    def redis(self) -> bool | None:
        return self.redis_is

    def stored(self) -> dict[str, str] | None:
        self.looks += 1
        counts = {name: "0" if name in self.still else str(self.looks) for name in ("beat", "control", "keys", "host")}
        return counts if self.takes else None

    def nodes(self) -> int:
        return self.nodes_are

    def answers(self, name: str) -> bool | None:
        return name not in self.mute

    def database(self) -> bool:
        self.asked += 1
        return self.database_is


class World:
    """A vigil, its clock, and the programs."""

    def __init__(self) -> None:
        self.shown = Shown()
        self.now = 1000.0
        self.vigil = Vigil(self.shown, list, lambda: self.now)
        self.pids = dict.fromkeys(PATIENCE, 0)
        self.state = "RUNNING"

    def look(self, step: float = STEP) -> set[str]:
        self.now += step
        states = [
            State(name if name == "redis" else f"vpn:{name}", self.state, pid, "") for name, pid in self.pids.items()
        ]
        return {name.removeprefix("vpn:") for name in self.vigil.hanging(states)}

    def found_after(self, most: float = 1000.0) -> tuple[float, set[str]]:
        """When something is first found to hang; nothing within ``most`` seconds is an empty set."""
        began = self.now
        while self.now - began < most:
            if found := self.look():
                return self.now - began, found
        return most, set()


@pytest.fixture
def world() -> World:
    made = World()
    for _ in range(3):
        assert made.look() == set()
    return made


def test_nothing_hangs_that_shows_life(world: World) -> None:
    assert world.found_after(5000)[1] == set()


@pytest.mark.parametrize("name", ["beat", "control", "keys", "host"])
def test_one_whose_count_stands_still_hangs_and_nobody_else(world: World, name: str) -> None:
    world.shown.still = {name}
    world.look()
    seconds, found = world.found_after()
    assert found == {name}
    assert PATIENCE[name] - STEP <= seconds <= PATIENCE[name] + STEP


@pytest.mark.parametrize(("name", "times"), [("beat", 1), ("control", 4), ("keys", 4), ("host", 1)])
def test_who_shares_its_work_with_other_nodes_is_given_as_many_times_the_patience(
    world: World, name: str, times: int
) -> None:
    world.shown.nodes_are, world.shown.still = 4, {name}
    world.look()
    seconds, found = world.found_after(2000)
    assert found == {name}
    assert times * PATIENCE[name] - STEP <= seconds <= times * PATIENCE[name] + STEP


@pytest.mark.parametrize("name", ["front", "web", "waiting", "gateway"])
def test_one_that_does_not_answer_hangs(world: World, name: str) -> None:
    world.shown.mute = {name}
    assert world.found_after()[1] == {name}


def test_of_a_beat_that_hangs_the_workers_are_not_accused(world: World) -> None:
    world.shown.still = {"beat", "control", "keys"}
    assert set().union(*(world.look() for _ in range(400))) == {"beat"}


def test_of_a_redis_that_hangs_nobody_else_is_accused(world: World) -> None:
    world.shown.redis_is = False
    world.shown.still, world.shown.mute = {"beat", "control", "keys", "host"}, {"web", "gateway"}
    assert world.found_after() == (PATIENCE["redis"], {"redis"})
    world.shown.own_redis = False
    assert world.found_after(5000)[1] == set()


@pytest.mark.parametrize(("redis_is", "takes"), [(None, True), (True, False)])
def test_nobody_is_accused_while_redis_is_away_or_takes_nothing(
    world: World, redis_is: bool | None, takes: bool
) -> None:
    world.shown.redis_is, world.shown.takes = redis_is, takes
    world.shown.still, world.shown.mute = {"beat", "control", "keys", "host"}, {"web", "gateway"}
    assert world.found_after(5000)[1] == set()
    # And when it is back, everybody has all of the time again.
    world.shown.redis_is = world.shown.takes = True
    assert world.found_after()[0] >= min(PATIENCE["beat"], PATIENCE["web"])


@pytest.mark.parametrize("name", ["control", "keys", "web", "waiting", "gateway"])
def test_who_waits_for_the_database_is_not_accused(world: World, name: str) -> None:
    world.shown.database_is = False
    world.shown.still = world.shown.mute = {name}
    assert world.found_after(2000)[1] == set()
    assert world.shown.asked
    world.shown.database_is = True
    assert world.found_after()[1] == {name}


def test_a_machine_that_slept_accuses_nobody(world: World) -> None:
    world.shown.still = {"beat"}
    world.look()
    assert world.look(100_000) == set()
    assert min(PATIENCE.values()) >= 3 * LONGEST_LOOK  # one look is no proof


def test_a_new_process_has_all_of_the_time(world: World) -> None:
    world.shown.still = {"host"}
    for pid in range(1, 100):
        world.pids["host"] = -pid
        assert world.look() == set()
    assert world.found_after()[1] == {"host"}


def test_what_does_not_run_does_not_hang(world: World) -> None:
    world.shown.still, world.state = {"beat", "host"}, "FATAL"
    assert world.found_after(2000)[1] == set()


def test_one_that_hangs_again_and_again_is_restarted_ever_more_slowly(world: World) -> None:
    world.shown.still = {"host"}
    pauses = [world.found_after(5000)[0] for _ in range(9)]
    assert pauses[1:4] == [PATIENCE["host"] * 2, PATIENCE["host"] * 4, PATIENCE["host"] * 8]
    assert pauses[-1] == LONGEST_PATIENCE
    # Once it has lived for long enough, all is forgiven.
    world.shown.still = set()
    world.look(FORGIVEN_AFTER + 1)
    world.shown.still = {"host"}
    world.look()
    assert world.found_after()[0] <= PATIENCE["host"] + STEP


# The signs themselves


@pytest.fixture
def instance() -> Iterator[str]:
    name = secrets.token_hex(8)
    yield name
    processes.end(processes.marked(name), name, grace=0)


def test_who_computes_is_busy_and_who_sleeps_or_is_stopped_is_not(instance: str) -> None:
    code = "print('up', flush=True)\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env={processes.MARK: instance})
    sleeper = subprocess.Popen(["sleep", "1000"], env={processes.MARK: instance})
    assert process.stdout is not None
    process.stdout.readline()
    activity = Activity()
    assert activity.busy([process.pid], 5, 100)
    until(lambda: not activity.busy([sleeper.pid], 5, 100))
    process.send_signal(signal.SIGSTOP)
    until(lambda: not activity.busy([process.pid], 5, 100))
    assert not activity.busy([process.pid, 2**22 + 1], 5, 100)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[programs.Site]:
    with RedisServer() as server:
        yield programs.Site(
            tmp_path, tmp_path, "0" * 32, gateway_port=9, host_id="a", backend="auto", stamp="", redis_url=server.url
        )


def test_signs_are_read_and_a_redis_that_refuses_shows_none(site: programs.Site) -> None:
    signs = Signs(site, "none")
    with redis.Redis.from_url(site.redis_url) as client:
        before = signs.stored()
        noted.note(client, "beat", "none")
        noted.note(client, "control", "another node's")
        client.set("host.a:alive", "3")
        after = signs.stored()
        assert before is not None
        assert after is not None
        assert {name for name in after if before.get(name) != after[name]} == {"beat", "host", "watch"}
        client.config_set("min-replicas-to-write", "1")  # as on a full disk: it answers, and takes nothing
        assert (signs.redis(), signs.stored(), signs.own_redis) == (True, None, False)


def test_a_redis_that_is_stopped_hangs_and_one_that_is_not_there_does_not(
    site: programs.Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis.Redis.from_url(site.redis_url) as client:
        pid = int(client.info("server")["process_id"])
    assert Signs(site, "none").redis() is True
    monkeypatch.setattr("vpnproject.runner.signs.WITHIN", NEVER)
    signs = Signs(site, "none")
    os.kill(pid, signal.SIGSTOP)
    try:
        assert (signs.redis(), signs.stored()) == (False, None)
    finally:
        os.kill(pid, signal.SIGCONT)
    os.kill(pid, signal.SIGKILL)
    until(lambda: signs.redis() is None)


@pytest.mark.parametrize(("does", "expected"), [("answer", True), ("close", True), ("hang", False)])
def test_whoever_listens_and_says_nothing_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, expected: bool
) -> None:
    monkeypatch.setattr("vpnproject.runner.signs.WITHIN", HANGING if expected else NEVER)
    path = str(tmp_path / "s")
    assert _answers(path, b"x") is None
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            with listener.accept()[0] as connection:
                if does == "answer":
                    connection.sendall(b"HTTP/1.1 404")

        if does != "hang":
            threading.Thread(target=serve, daemon=True).start()
        assert _answers(path, b"x") is expected


def test_of_the_fronts_processes_one_that_hangs_is_enough(site: programs.Site, monkeypatch: pytest.MonkeyPatch) -> None:
    signs = Signs(site, "none")
    assert signs.answers("front") is None  # nobody listens
    monkeypatch.setattr("vpnproject.runner.signs.WITHIN", HANGING)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = replace(site, gateway_port=listener.getsockname()[1])

        def serve(times: int) -> None:
            for _ in range(times):
                with listener.accept()[0] as connection:
                    connection.sendall(b"HTTP/1.1 400")

        def ask(answered: int) -> bool | None:
            thread = threading.Thread(target=serve, args=[answered])
            thread.start()
            try:
                return Signs(here, "none").answers("front")
            finally:
                thread.join(HANGING)

        assert ask(FRONT_TIMES) is True
        monkeypatch.setattr("vpnproject.runner.signs.WITHIN", 10 * NEVER)
        assert ask(FRONT_TIMES - 1) is False
