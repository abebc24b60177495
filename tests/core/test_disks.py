"""What the control side does on real disks that take no more, and what an administrator is told."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from django.conf import LazySettings
from django.test import Client

from core import disks
from core.redis_store import cannot_store
from tests.admin_site import staff
from tests.lab import FAILURES, HANGING, PYTHON, Disk, Namespace, ended_afterwards, until
from vpnproject.runner import probes, programs

pytestmark = pytest.mark.host


@pytest.fixture
def machine() -> Iterator[Namespace]:
    made = Namespace("disks")
    yield made
    made.close()


@pytest.fixture
def directory() -> Iterator[Path]:
    # Not pytest's own directory: the path of a socket may not be long.
    made = Path(tempfile.mkdtemp(prefix="vpn-disk-"))
    yield made
    shutil.rmtree(made)


WORDS = {"full": "is full", "read-only": "is read-only", "without inodes": "has no inodes left"}


@pytest.mark.parametrize("how", FAILURES)
def test_a_failing_disk_is_said_once(machine: Namespace, directory: Path, how: str) -> None:
    disk = Disk(machine, directory)
    path = disk.seen_from_here
    (path / "log").mkdir()
    assert disks.faults([path, path / "log"]) == []
    disk.fail(how)
    (said,) = disks.faults([path, path / "log", path / "not there"])
    assert said.startswith(f"The disk of {path} {WORDS[how]}")
    disk.recover(how)
    assert disks.faults([path]) == []


def test_a_failing_disk_is_on_the_first_page(
    machine: Namespace, directory: Path, settings: LazySettings, client: Client, db: None
) -> None:
    staff(client, superuser=True)
    disk = Disk(machine, directory)
    settings.VAR = disk.seen_from_here
    assert "is full" not in client.get("/admin/").content.decode()
    disk.fail("full")
    page = client.get("/admin/").content.decode()
    assert f"The disk of {settings.VAR} is full" in page
    assert "Clients that are connected stay" in page


# Carries out one command a line. It must be in the namespace: SQLite follows links, out of it, by itself.
SCRIPT = """
import sqlite3, sys
from django.conf import settings
from vpnproject import env
settings.configure(DATABASES={"default": env.database(sys.argv[1])})
import django
django.setup()
from django.db import OperationalError, close_old_connections, connection, transaction
others = []
def run(word):
    if word == "another":
        others.append(sqlite3.connect(sys.argv[1]))
        return others[0].execute("SELECT count(*) FROM t").fetchone()[0]
    if word == "close":
        return connection.close()
    with transaction.atomic(), connection.cursor() as cursor:
        if word == "make":
            return cursor.execute("CREATE TABLE t (c TEXT)") and None
        if word == "count":
            return cursor.execute("SELECT count(*) FROM t").fetchone()[0]
        cursor.executemany("INSERT INTO t VALUES (%s)", [["x" * 1000]] * int(word))
for line in sys.stdin:
    try:
        print(run(line.strip()), flush=True)
    except OperationalError as error:
        print("OperationalError", error, flush=True)
    close_old_connections()  # as after each request
"""


@pytest.mark.parametrize("how", FAILURES)
def test_a_database_that_cannot_be_written_raises_what_views_expect_and_goes_on_by_itself(
    machine: Namespace, directory: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    disk = Disk(machine, directory, size="1m")
    command = machine.command(PYTHON, "-c", SCRIPT, directory / "db.sqlite3")
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(word: str) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        print(word, file=process.stdin, flush=True)
        return process.stdout.readline().strip()

    with ended_afterwards(process):
        assert [ask("make"), ask("10"), ask("count")] == ["None", "None", "10"]
        if how == "read-only":
            # With one that is open, further ones can be opened, for reading alone.
            assert ask("another") == "10"
        if how != "full":
            ask("close")  # what is open goes on
        disk.fail(how)
        assert "OperationalError" in ask("1000")
        if how != "without inodes":
            until(lambda: ask("count") == "10")  # perhaps by another connection than the one that failed
        disk.recover(how)
        until(lambda: ask("10") == "None")  # the first one may find that its connection is of before
        assert ask("count") == "20"


def test_redis_on_a_full_disk_refuses_and_goes_on_by_itself(
    machine: Namespace, directory: Path, settings: LazySettings
) -> None:
    (directory / "redis").mkdir()
    disk = Disk(machine, directory / "redis", size="1m")
    socket = disk.seen_from_here / "redis.sock"  # it is on that disk
    (disk.seen_from_here / "users.acl").write_text("user default on nopass ~* &* +@all\n")
    (directory / "redis.conf").write_text(programs.redis_configuration(directory, 2**30))
    process = machine.start("redis-server", directory / "redis.conf")
    settings.REDIS_URL = f"unix://{socket}?db=0"
    with ended_afterwards(process):
        until(lambda: probes.redis_answers(socket))
        with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=HANGING) as client:
            client.set("nonce", "used")
            assert not cannot_store()
            disk.fail("full")

            def refused() -> bool:
                try:
                    client.set("filler", "x" * 5000)
                except redis.ResponseError as error:
                    return "MISCONF" in str(error)
                return False

            until(refused)
            until(cannot_store)
            assert client.get("nonce") == b"used"
            disk.recover("full")
            until(lambda: not cannot_store())
            client.set("nonce", "again")


@pytest.mark.parametrize("how", ["read-only", "without inodes"])
def test_redis_on_a_disk_that_takes_no_new_file_serves_on_and_is_whole_again_after_a_restart(
    machine: Namespace, directory: Path, how: str
) -> None:
    (directory / "redis").mkdir()
    disk = Disk(machine, directory / "redis", size="1m")
    socket = disk.seen_from_here / "redis.sock"
    (disk.seen_from_here / "users.acl").write_text("user default on nopass ~* &* +@all\n")
    (directory / "redis.conf").write_text(programs.redis_configuration(directory, 2**30))
    process = machine.start("redis-server", directory / "redis.conf")
    with ended_afterwards(process):
        until(lambda: probes.redis_answers(socket))
        with redis.Redis.from_url(f"unix://{socket}?db=0", socket_timeout=HANGING) as client:
            client.set("nonce", "used")
            disk.fail(how)
            client.set("later", "used")  # its file is open
            with contextlib.suppress(redis.ResponseError):  # it may say at once that it cannot
                client.execute_command("BGREWRITEAOF")
            until(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
            assert client.set("after", "used")
        process.kill()
        process.wait()
    # It starts with all that it had, or not at all.
    again = machine.start("redis-server", directory / "redis.conf")
    with ended_afterwards(again):
        if how == "read-only":
            assert again.wait(HANGING) != 0
            disk.recover(how)
            again = machine.start("redis-server", directory / "redis.conf")
        with ended_afterwards(again):
            until(lambda: probes.redis_answers(socket))
            with redis.Redis.from_url(f"unix://{socket}?db=0", socket_timeout=HANGING) as client:
                assert client.mget("nonce", "later", "after") == [b"used"] * 3
