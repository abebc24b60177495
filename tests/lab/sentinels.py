"""A Redis with a replica and three Sentinels that watch them, each as on a machine of its own, on loopback ports."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

import redis

from tests.lab.namespaces import Namespace
from tests.lab.waiting import HANGING, until

MASTER = "vpn"
# Seconds of silence after which the Sentinels take a Redis for dead.
DOWN_AFTER = 2.0


class SentinelRedis:
    """``password`` is Redis's, and its replica's; ``own_password`` that of the Sentinels. ``where``: the namespace that
    all of it is in, at ``address``."""

    def __init__(
        self,
        where: Namespace | None = None,
        password: str = "",
        own_password: str = "",
        redises: int = 2,
        sentinels: int = 3,
        address: str = "127.0.0.1",
    ) -> None:
        self._where, self._address = where, address
        self.directory = Path(tempfile.mkdtemp(prefix="lab-sentinels-"))
        self._password, self._own_password = password, own_password
        # Bound until each program takes its own, so that no two get the same.
        ports = free_ports(redises + sentinels)
        self.redis_ports, self.sentinel_ports = ports[:redises], ports[redises:]
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def passwords(self) -> set[str]:
        return {word for word in (self._password, self._own_password) if word}

    @property
    def url(self) -> str:
        login = f":{self._password}@" if self._password else ""
        own = f"?sentinel_password={self._own_password}" if self._own_password else ""
        return (
            f"sentinel://{login}{','.join(f'{self._address}:{port}' for port in self.sentinel_ports)}/{MASTER}/0{own}"
        )

    def __enter__(self) -> Self:
        try:
            first, *others = self.redis_ports
            self.start_redis(first)
            for port in others:
                self.start_redis(port, first)
            for port in self.sentinel_ports:
                self._start_sentinel(port, first)
            until(self._complete)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for port in list(self._running):
            self.kill(port)
        shutil.rmtree(self.directory, ignore_errors=True)

    def start_redis(self, port: int, replica_of: int | None = None) -> None:
        options = ["--save", "", "--appendonly", "no", "--bind", self._address, "--repl-diskless-sync-delay", "0"]
        if self._password:
            options += ["--requirepass", self._password, "--masterauth", self._password]
        if replica_of is not None:
            options += ["--replicaof", f"{self._address} {replica_of}"]
        self._start(port, "redis-server", "--port", str(port), *options)
        until(lambda: answers(self.to_redis(port)))

    def _start_sentinel(self, port: int, master: int) -> None:
        lines = [
            f"port {port}",
            f"bind {self._address}",
            f"sentinel monitor {MASTER} {self._address} {master} {len(self.sentinel_ports) // 2 + 1}",
            f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER * 1000:.0f}",
            f"sentinel failover-timeout {MASTER} 6000",
        ]
        if self._password:
            lines.append(f"sentinel auth-pass {MASTER} {self._password}")
        if self._own_password:
            lines += [f"requirepass {self._own_password}", f"sentinel sentinel-pass {self._own_password}"]
        file = self.directory / f"sentinel-{port}.conf"
        file.write_text("\n".join(lines) + "\n")
        self._start(port, "redis-server", str(file), "--sentinel")
        until(lambda: answers(self.to_sentinel(port)))

    def _start(self, port: int, *command: str) -> None:
        home = self.directory / str(port)
        home.mkdir(exist_ok=True)
        # It dies with the thread that starts it, so that no killed test leaves one behind.
        if self._where is not None:
            self._running[port] = self._where.start(*command, cwd=home)
            return
        self._running[port] = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command], stdout=subprocess.DEVNULL, cwd=home, start_new_session=True
        )

    def to_redis(self, port: int) -> redis.Redis:
        return self._client(port, self._password)

    def to_sentinel(self, port: int) -> redis.Redis:
        return self._client(port, self._own_password)

    def _client(self, port: int, password: str) -> redis.Redis:
        kind = redis.Connection if self._where is None else connection_in(self._where)
        options: dict[str, Any] = {"host": self._address, "port": port, "socket_timeout": HANGING}
        if password:
            options["password"] = password
        return redis.Redis.from_pool(redis.ConnectionPool(kind, **options))

    def client(self) -> redis.Redis:
        """To the Redis that is master now."""
        return self.to_redis(self.master())

    def master(self) -> int:
        """The port of the one that the Sentinels say is master."""
        for port in self.sentinel_ports:
            with contextlib.suppress(redis.RedisError):
                found: Any = self.to_sentinel(port).sentinel_get_master_addr_by_name(MASTER)
                return int(found[1])
        raise AssertionError("no Sentinel answers")

    def kill(self, port: int) -> None:
        """SIGKILL."""
        process = self._running.pop(port)
        process.kill()
        process.wait(HANGING)

    def hang(self, port: int) -> None:
        """It keeps its connections and answers nothing, as a machine that is cut off."""
        os.kill(self._running[port].pid, signal.SIGSTOP)

    def go_on(self, port: int) -> None:
        os.kill(self._running[port].pid, signal.SIGCONT)

    def _complete(self) -> bool:
        """Whether each Sentinel knows the others and the replicas, and these are in step."""
        for port in self.sentinel_ports:
            states: Any = self.to_sentinel(port).sentinel_masters()
            state = states[MASTER]
            others = state["num-slaves"] == len(self.redis_ports) - 1
            if not others or state["num-other-sentinels"] != len(self.sentinel_ports) - 1:
                return False
        info = self.to_redis(self.redis_ports[0]).info("replication")
        return all(
            info.get(f"slave{number}", {}).get("state") == "online" for number in range(len(self.redis_ports) - 1)
        )


def connection_in(where: Namespace) -> type[redis.Connection]:
    class InNamespace(redis.Connection):
        def _connect(self) -> socket.socket:
            made = where.socket(self.host, socket.SOCK_STREAM)
            made.settimeout(self.socket_timeout)
            made.connect((self.host, self.port))
            return made

    return InNamespace


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody has now."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
