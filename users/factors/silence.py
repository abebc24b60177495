"""Which servers of a provider were silent a short while ago: those are asked after the others, by all processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import redis

from core.redis_store import redis_client

# Seconds.
ASKED_LAST = 120
S = TypeVar("S")


def in_order(provider: str, servers: Sequence[S]) -> list[S]:
    """As they are listed, and last those that were silent. ``provider``: its public id; ``str`` names a server."""
    try:
        silent = redis_client().mget([_key(provider, server) for server in servers])
    except redis.RedisError:
        silent = [None] * len(servers)
    by_silence = sorted(zip(servers, silent, strict=True), key=lambda pair: pair[1] is not None)
    return [server for server, _ in by_silence]


def remember(provider: str, server: object) -> None:
    try:
        redis_client().set(_key(provider, server), "1", ex=ASKED_LAST)
    except redis.RedisError:
        return  # it is asked in its turn then, as before


def _key(provider: str, server: object) -> str:
    return f"silent:{provider}:{server}"
