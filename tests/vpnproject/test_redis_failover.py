"""Redis under Sentinel: its master dies or hangs, and everybody goes on with the next one, without a restart."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from django.conf import LazySettings

from core import task_names
from core.redis_store import RedisUnavailable, own_connection, redis_client
from core.task_queue import enqueue, enqueue_composed
from servers.hostnet.agent.channel import Beat, Channel
from tests.attack import connect, pinged
from tests.conftest import Clock, send_celery_to
from tests.factories import Company, HostStandIn, revive
from tests.lab import PROJECT, SentinelRedis, ended_afterwards, until
from tests.lab.sentinels import MASTER
from tests.processes import environment
from tests.protocol_client import NOW, new_wg_key
from wgpeers.lifecycle import liveness, reaper
from wgpeers.lifecycle.keepalive import keepalive
from wgpeers.models import Connection, State

# What may become of a master.
FAULTS: dict[str, Callable[[SentinelRedis, int], None]] = {"killed": SentinelRedis.kill, "hung": SentinelRedis.hang}


@pytest.fixture
def server(settings: LazySettings) -> Iterator[SentinelRedis]:
    before = settings.REDIS_URL
    with SentinelRedis(password="of-redis") as made:
        settings.REDIS_URL = made.url
        send_celery_to(made.url)
        yield made
        settings.REDIS_URL = before
        send_celery_to(before)


def lose_master(server: SentinelRedis, how: str) -> None:
    """Have the master die or hang, and wait until the Sentinels have made the other one master."""
    before = server.master()
    FAULTS[how](server, before)
    until(lambda: server.master() != before, every=0.1)


def works(call: Callable[[], object]) -> bool:
    try:
        call()
    except (redis.RedisError, RedisUnavailable):
        return False
    return True


def is_demoted(server: SentinelRedis, port: int) -> bool:
    with contextlib.suppress(redis.RedisError):  # it ends its connections when it is
        return bool(server.to_redis(port).role()[0] == b"slave")
    return False


@pytest.mark.parametrize("how", FAULTS)
def test_connections_of_every_kind_find_the_next_master(
    server: SentinelRedis, settings: LazySettings, how: str
) -> None:
    settings.CONFIRM_TIMEOUT = 1.0  # nobody waits for an answer longer than for it and a little
    channel = Channel("h1", server.url, "boot")
    kinds: dict[str, Callable[[], object]] = {
        "pooled": lambda: redis_client().set("a", "1"),
        "a thread's own": lambda: own_connection().call("SET", "b", "1"),
        "without Celery": lambda: sure(enqueue_composed("none", {}, "host.h1")),
        "Celery": lambda: sure(enqueue("none", queue="control")),
        "a host's": lambda: sure(channel.beat() is not Beat.UNREACHABLE),
    }
    assert [name for name, call in kinds.items() if not works(call)] == []
    lose_master(server, how)
    left = set(kinds)

    def nobody_is_left() -> bool:
        left.difference_update({name for name in left if works(kinds[name])})
        return not left

    until(nobody_is_left, every=0.1)
    for key in ("a", "b", "host.h1", "control", "host.h1:alive"):
        assert server.client().exists(key), key


def sure(done: bool) -> None:
    if not done:
        raise RedisUnavailable


def test_a_master_that_was_demoted_is_left_at_once(server: SentinelRedis) -> None:
    """It answers, and takes nothing: whoever has a connection to it asks the Sentinels again."""
    assert redis_client().set("a", "1")
    own_connection().call("SET", "a", "1")
    before = server.master()
    server.to_sentinel(server.sentinel_ports[0]).sentinel_failover(MASTER)
    until(lambda: is_demoted(server, before), every=0.1)
    until(lambda: works(lambda: redis_client().set("a", "2")), every=0.1)
    until(lambda: works(lambda: own_connection().call("SET", "b", "2")), every=0.1)
    assert server.client().mget("a", "b") == [b"2", b"2"]


def test_a_fail_over_is_found_as_a_loss_of_memory_and_ends_nobody(
    company: Company, fixed_clock: Clock, server: SentinelRedis
) -> None:
    """What the old master had not passed on yet is lost: here all there was since the replica was cut off."""
    revive(company.host)
    alice, key = company.hire("alice")[1], new_wg_key()
    with HostStandIn(company.host).running():
        connect(alice, wg_public_key=key)
        reaper.sweep(NOW)
    assert not liveness.lost_memory()
    row = Connection.objects.get()
    # As a deadline would be that the replica had not heard of for long.
    redis_client().zadd(liveness.DEADLINES, {row.public_id: NOW - 1})
    lose_master(server, "killed")
    until(lambda: works(lambda: redis_client().ping()), every=0.1)
    keepalive.forget()
    assert liveness.lost_memory()
    reaper.sweep(fixed_clock.advance(10))
    row.refresh_from_db()
    assert row.state == State.OPEN
    assert liveness.deadline(row.public_id) == NOW + 10 + 360
    assert not liveness.lost_memory()
    revive(company.host)
    now = int(fixed_clock.advance(10))
    assert pinged(alice, key, now=now)


HOST = """
import sys
from pathlib import Path
import redis
from servers.hostnet.agent.worker import Settings, make_app
from servers.hostnet.state import redis_connections
url = sys.argv[1]
app = make_app(Settings("abc", url, Path("/nonexistent"), "userspace", 9790))
store = redis_connections.client(url, socket_timeout=2)
def note(text):
    store.rpush("host.abc:noted", text)
app.task(name="note")(note)
app.worker_main(["worker", "--pool=solo", "--concurrency=1", "--queues=host.abc", "--without-gossip",
    "--without-mingle", "--without-heartbeat", "--loglevel=INFO"])
"""


@contextlib.contextmanager
def running(name: str, directory: Path, *command: str, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    log = directory / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=PROJECT, env={**os.environ, **env}, stdout=output, stderr=subprocess.STDOUT
        )
    with ended_afterwards(process):
        try:
            yield process
        except BaseException:
            print(log.read_text()[-4000:])
            raise


@pytest.mark.parametrize("how", FAULTS)
def test_a_hosts_worker_goes_on_without_a_restart(server: SentinelRedis, tmp_path: Path, how: str) -> None:
    def noted(text: str) -> bool:
        """Whether a message that is sent now is heard of. It may be lost with the master: then it is sent again."""
        enqueue_composed("note", text, "host.abc")
        with contextlib.suppress(redis.RedisError):
            return text.encode() in server.client().lrange("host.abc:noted", 0, -1)
        return False

    with running("host", tmp_path, sys.executable, "-c", HOST, server.url, env={}) as worker:
        until(lambda: noted("first"), every=0.2)
        lose_master(server, how)
        until(lambda: noted("second"), every=0.2)
        assert worker.poll() is None


@pytest.mark.parametrize("how", FAULTS)
def test_the_control_worker_goes_on_without_a_restart(
    transactional_db: None, server: SentinelRedis, tmp_path: Path, how: str
) -> None:
    def swept() -> bool:
        enqueue(task_names.SWEEP)
        with contextlib.suppress(redis.RedisError):
            return bool(server.client().exists("sweeps:last"))
        return False

    celery = (sys.executable, "-m", "celery", "--app", "vpnproject", "worker", "-Q", "control", "--pool", "threads")
    quiet = ("-c", "2", "--without-gossip", "--without-mingle", "--without-heartbeat")
    env = {**environment(), "REDIS_URL": server.url}
    with running("control", tmp_path, *celery, *quiet, env=env) as worker:
        until(swept, every=0.2)
        lose_master(server, how)
        until(lambda: works(lambda: server.client().delete("sweeps:last")), every=0.2)
        until(swept, every=0.2)
        assert worker.poll() is None
