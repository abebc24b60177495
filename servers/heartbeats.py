"""Which hosts are alive: each host's worker renews a key in Redis that expires by itself."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import redis

from core.redis_store import RedisUnavailable, own_connection

from .hostnet.state.conditions import Code, HostCondition, conditions_to_json
from .models import Host

# Seconds. A heartbeat is up to ten seconds old when it is read, and clocks that nobody steers drift.
CLOCKS_DIFFER = 30.0


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


def ahead(beat: Mapping[str, Any], now: float) -> float:
    """By how many seconds that host's clock is ahead of ours (negative: behind); 0 where it is as ours, as far as can
    be told."""
    try:
        seconds = float(beat.get("time", now)) - now
    except (TypeError, ValueError, OverflowError):  # a host is not trusted to write well
        return 0.0
    return seconds if math.isfinite(seconds) and abs(seconds) >= CLOCKS_DIFFER else 0.0


def conditions(host: Host, beat: object, now: float) -> list[dict[str, Any]]:
    """What is wrong on the machine: as it reported, and what we see of its clock in its last heartbeat."""
    seconds = ahead(beat, now) if isinstance(beat, Mapping) else 0.0
    if not seconds:
        return list(host.conditions)
    text = (
        f"This machine's clock is {abs(seconds):.0f} seconds {'ahead' if seconds > 0 else 'behind'}, by the control"
        " side's. Tunnels do not depend on it, but DNS over TLS and the times in its log do: have it set by NTP."
    )
    return [*conditions_to_json([HostCondition.of(Code.CLOCK_OFF, text)]), *host.conditions]
