"""Which hosts are alive: each host's worker renews a key in Redis that expires by itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import redis

from core.redis_store import RedisUnavailable, own_connection

from .models import Host


def key(host: Host) -> str:
    return f"{host.queue}:alive"


def read(hosts: Sequence[Host]) -> dict[int, dict[str, Any]]:
    """What each living host last said of itself, by primary key; a silent one is not in it."""
    if not hosts:
        return {}
    try:
        values: Any = own_connection().call("MGET", *map(key, hosts))
    except redis.RedisError as error:
        raise RedisUnavailable from error
    return {host.pk: _parsed(value) for host, value in zip(hosts, values, strict=True) if value}


def _parsed(value: str) -> dict[str, Any]:
    # A host is not trusted to write well: whatever is there, the key itself says that it lives.
    try:
        data = json.loads(value)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
