"""Networks in which each address brings the pings of many clients (the mesh's), for the front of each control node:
it does not count them. Without Django: the supervising side reads them."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable
from typing import Any

import redis

_KEY = "front:networks"


def say(client: redis.Redis, networks: Iterable[str]) -> None:
    """Raise ``RedisError``."""
    client.set(_KEY, json.dumps([*networks]))


def said(client: redis.Redis) -> tuple[str, ...] | None:
    """None where nobody has said any, or what is there is none: it becomes a part of a configuration. Raise
    ``RedisError``."""
    text: Any = client.get(_KEY)
    try:
        return tuple(str(ipaddress.ip_network(each)) for each in json.loads(text or "null"))
    except (ValueError, TypeError, RecursionError):
        return None
