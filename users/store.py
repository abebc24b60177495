"""The one door to Redis: everything that moves every second, and may be lost."""

from __future__ import annotations

from functools import lru_cache

import redis
from django.conf import settings


class StoreDown(Exception):
    """Redis cannot be reached; for a client this is our fault (5xx), never its own."""


@lru_cache(maxsize=4)
def _client(url: str) -> redis.Redis:
    # Timeouts, because a request that waits for a hung store without a limit holds its thread for ever.
    return redis.Redis.from_url(url, decode_responses=True, socket_timeout=5, socket_connect_timeout=2)


def store() -> redis.Redis:
    """A client with a connection pool, shared by all threads of this process."""
    return _client(settings.REDIS_URL)
