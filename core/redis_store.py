"""The one door to Redis: everything that moves every second, and may be lost.

How a URL is reached (by a socket, by Sentinels) is ``settings.REDIS_POOL``'s business, which hosts use as well.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any

import redis
from django.conf import settings


class RedisUnavailable(Exception):
    """Redis cannot be reached; for a client this is our fault (5xx), never its own."""


def _options(timeout: float) -> dict[str, Any]:
    # Timeouts, because a request that waits for a hung store without a limit holds its thread for ever.
    # Hosts write some of what is read here, and one that writes no UTF-8 must not fail what is read with it.
    return {
        "decode_responses": True,
        "encoding_errors": "replace",
        "socket_timeout": timeout,
        "socket_connect_timeout": 2,
    }


@lru_cache(maxsize=4)
def _client(url: str, timeout: float) -> redis.Redis:
    return redis.Redis.from_pool(settings.REDIS_POOL(url, **_options(timeout)))


def redis_client() -> redis.Redis:
    """A client with a connection pool, shared by all threads of this process."""
    # Longer than a blocking read for a host's confirmation, which else would look like a hung store.
    return _client(settings.REDIS_URL, 5 + settings.CONFIRM_TIMEOUT)


def eviction_policy() -> str:
    """What Redis throws away when its memory is full, by its name of it; empty where that is nothing."""
    try:
        memory: dict[str, Any] = redis_client().info("memory")
    except redis.RedisError as error:
        raise RedisUnavailable from error
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    return "" if policy == "noeviction" or not memory.get("maxmemory") else policy


def cannot_store() -> bool:
    """Whether Redis cannot write to its disk. It then refuses all that would change something."""
    try:
        persistence: dict[str, Any] = redis_client().info("persistence")
    except redis.RedisError as error:
        raise RedisUnavailable from error
    return bool(persistence.get("aof_enabled")) and persistence.get("aof_last_write_status") != "ok"


class OwnConnection:
    """One connection for one thread, without the client and the pool around it: half the cost of a call, on the way
    of every ping."""

    def __init__(self, url: str, timeout: float) -> None:
        self._pool = settings.REDIS_POOL(url, **_options(timeout))  # which knows where the connection is to go
        self._connection = self._pool.make_connection()

    def call(self, *words: str) -> Any:
        """The answer to one command, which must be one that may be carried out twice: where Redis was started anew, or
        is another one, since the last call, it is sent once more."""
        packed = self._connection.pack_command(*words)  # type: ignore[no-untyped-call]
        try:
            return self._exchange(packed)
        except redis.ConnectionError:
            return self._exchange(packed)

    def _exchange(self, packed: Any) -> Any:
        # Where it is not connected: under Sentinel only this asks where to.
        self._connection.connect()  # type: ignore[no-untyped-call]
        # Both disconnect when they fail, so an answer that comes late is never taken for the next one.
        self._connection.send_packed_command(packed)  # type: ignore[no-untyped-call]
        return self._connection.read_response(disconnect_on_error=True)


_threads = threading.local()


def own_connection() -> OwnConnection:
    """This thread's own."""
    url = settings.REDIS_URL
    if getattr(_threads, "url", None) != url:
        _threads.connection, _threads.url = OwnConnection(url, 5.0), url
    connection: OwnConnection = _threads.connection
    return connection
