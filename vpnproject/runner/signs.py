"""Where a program's signs of life are read. None of them goes by the time of day."""

from __future__ import annotations

import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from core import front_networks, nodes, signs
from servers.hostnet.state import redis_connections
from servers.hostnet.state.redis_urls import own_redis

from . import front, privileges
from .programs import Site, base_environment, django_environment

WITHIN = 5.0  # seconds for one answer
DATABASE_WITHIN = 60.0
# One of the front's processes may hang, and the kernel gives each connection to one of them as it likes.
FRONT_TIMES = 4
ASK_DATABASE = "import django; django.setup(); from django.db import connection as c; c.cursor().execute('SELECT 1')"


class Signs:
    """Of the programs of one installation."""

    def __init__(self, site: Site, instance: str) -> None:
        self._site = site
        self._instance, self._key = instance, signs.key(instance)
        self._environment = {**base_environment(instance), **django_environment(site.var)}
        own = own_redis(site.var, site.redis_password)
        url = site.redis_url or own
        self._redis = redis_connections.client(
            url,
            decode_responses=True,
            encoding_errors="replace",
            socket_timeout=WITHIN,
            socket_connect_timeout=WITHIN,
            retry=Retry(NoBackoff(), 0),
        )
        self.own_redis = url == own

    def redis(self) -> bool | None:
        """Whether Redis answers anything; None where it is not there at all, which supervisor sees by itself."""
        try:
            self._redis.ping()
        except redis.TimeoutError:
            return False
        except redis.ConnectionError:
            return None
        except redis.RedisError:
            pass  # it loads its file, or refuses since its disk is full
        return True

    def stored(self) -> dict[str, str] | None:
        """By program, what changes while it lives. None where Redis takes nothing: then they cannot show anything."""
        try:
            signs.note(self._redis, "watch", self._instance)
            self._redis.hset(self._key, "watched", 1)
            found = {str(name): str(value) for name, value in self._redis.hgetall(self._key).items()}
            found["host"] = str(self._redis.get(f"host.{self._site.host_id}:alive"))
        except redis.RedisError:
            return None
        return found

    def nodes(self) -> int:
        """How many control nodes share what there is to do; this one at least."""
        with suppress(redis.RedisError):
            return max(1, len(nodes.living(self._redis)))
        return 1

    def networks(self) -> tuple[str, ...] | None:
        """Those of the mesh; None where nobody can say."""
        with suppress(redis.RedisError):
            return front_networks.said(self._redis)
        return None

    def answers(self, name: str) -> bool | None:
        """Whether web, its second pool, gateway web or the front answers; None where nobody listens."""
        if name == "front":
            where = "127.0.0.1", self._site.gateway_port
            answers = (_answers(where, b"malformed\r\n\r\n") for _ in range(FRONT_TIMES))
            return next((answer for answer in answers if not answer), True)
        sockets = {"web": front.web_socket, "waiting": front.waiting_socket, "gateway": front.gateway_socket}
        home = sockets[name](self._site.front)
        # A path that asks neither the database nor Redis.
        return _answers(str(home), b"GET /key/ HTTP/1.0\r\nHost: here\r\n\r\n")

    def database(self) -> bool:
        """Whether the database answers whoever asks it anew."""
        command = privileges.wrapped("setup", [str(self._site.python), "-c", ASK_DATABASE])
        with suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                command,
                cwd=self._site.project,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=DATABASE_WITHIN,
                check=False,
            )
            return done.returncode == 0
        return False


def _answers(where: str | tuple[str, int], request: bytes) -> bool | None:
    """Whether something comes, be it the connection's end; None where nobody listens."""
    with socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET) as connection:
        connection.settimeout(WITHIN)
        try:
            connection.connect(where)
            connection.sendall(request)
            connection.recv(1)
        except TimeoutError:
            return False
        except (ConnectionResetError, BrokenPipeError):
            return True
        except OSError:
            return None
        return True


class Activity:
    """Whether processes do something, be it wait for the processor or the disk: such a one is busy, and not hung."""

    # Of one processor. Idle programs that only wake up to look around use a tenth of it.
    BUSY = 0.05

    def __init__(self) -> None:
        self._ticks: dict[int, int] = {}

    def busy(self, pids: list[int], seconds: float, ticks_a_second: int) -> bool:
        """Since it was last asked about them, ``seconds`` ago."""
        spent, active = 0, False
        for pid in pids:
            with suppress(OSError, ValueError, IndexError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                now = int(fields[11]) + int(fields[12])
                spent += now - self._ticks.get(pid, now)
                self._ticks[pid] = now
                active = active or fields[0] in "RD"
        return active or spent > self.BUSY * seconds * ticks_a_second
