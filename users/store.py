"""The one door to Redis: everything that moves every second, and may be lost."""

from __future__ import annotations

import threading
from functools import lru_cache

import redis
from django.conf import settings


class StoreDown(Exception):
    """Redis cannot be reached; for a client this is our fault (5xx), never its own."""


def _connect(url: str, timeout: float, *, single: bool = False) -> redis.Redis:
    # Timeouts, because a request that waits for a hung store without a limit holds its thread for ever.
    # Hosts write some of what is read here, and one that writes no UTF-8 must not fail what is read with it.
    return redis.Redis.from_url(
        url,
        decode_responses=True,
        encoding_errors="replace",
        socket_timeout=timeout,
        socket_connect_timeout=2,
        single_connection_client=single,
    )


_client = lru_cache(maxsize=4)(_connect)


def store() -> redis.Redis:
    """A client with a connection pool, shared by all threads of this process."""
    # Longer than a blocking read for a host's confirmation, which else would look like a hung store.
    return _client(settings.REDIS_URL, 5 + settings.CONFIRM_TIMEOUT)


_threads = threading.local()


def own_store() -> redis.Redis:
    """A client with one connection, kept for this thread alone: a third quicker than one from the pool."""
    url = settings.REDIS_URL
    if getattr(_threads, "url", None) != url:
        _threads.client, _threads.url = _connect(url, 5.0, single=True), url
    client: redis.Redis = _threads.client
    return client
