"""Programs that a lab starts, and their end."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import redis

from tests.lab.waiting import HANGING, PATIENCE, until

PROJECT = Path(__file__).resolve().parents[2]
PYTHON = Path(sys.executable)


class RedisServer:
    """A Redis of its own on a unix socket that every namespace reaches, keeping nothing on disk.

    ``users`` are further users, each as name and ACL rules: ``("alice", "on", ">secret", "~alice*", "+@all")``. With a
    ``password`` it keeps its users in a file, as the product's does, and lets nobody in without one. ``within`` is a
    command that runs another one elsewhere, where it may listen on more than the socket.
    """

    def __init__(self, users: Sequence[Sequence[str]] = (), password: str = "", within: Sequence[str] = ()) -> None:
        self._users, self._password, self._within = users, password, within
        self.directory = Path(tempfile.mkdtemp(prefix="lab-redis-"))
        self.socket = self.directory / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        login = f"default:{self._password}@" if self._password else ""
        return f"unix://{login}{self.socket}?db=0"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.directory)

    def start(self) -> None:
        """Start it empty and wait until it answers."""
        options = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no"]
        for user in self._users:
            options += ["--user", *user]
        if self._password:
            acl = self.directory / "users.acl"
            if not acl.exists():
                acl.write_text(f"user default on >{self._password} ~* &* +@all\n")
            options += ["--aclfile", str(acl)]
        self._process = subprocess.Popen(
            # It dies with the thread that starts it, so that no killed test leaves one behind.
            [*self._within, "setpriv", "--pdeathsig", "KILL", "redis-server", *options, "--dir", str(self.directory)],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        until(self._answers)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    def kill(self) -> None:
        """SIGKILL: whatever it knew is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(HANGING)
            self._process = None

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, socket_timeout=2 * HANGING)  # longer than anybody waits in it


@contextlib.contextmanager
def ended_afterwards(
    process: subprocess.Popen[Any], timeout: float = 10.0 * PATIENCE
) -> Iterator[subprocess.Popen[Any]]:
    """Ask ``process`` to end (SIGTERM) on the way out; kill it when it does not within ``timeout`` seconds."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(HANGING)
