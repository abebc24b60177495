"""Which hosts are alive: each host's worker renews keys in Redis that expire by themselves, so that nothing of it is in
the database and no two machines' clocks are compared.

A host that was silent for four seconds gets no new clients. One that was for ten is down; its clients keep their
connections all the same, each until its own deadline.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from core.redis_store import RedisUnavailable, own_connection

from .hostnet.state.beats import ALIVE_FOR
from .hostnet.state.conditions import Code, HostCondition, conditions_to_json
from .hostnet.state.reach import Reach, number, reach_from_json
from .hostnet.state.version import FORMAT
from .models import Host

# Seconds. A heartbeat is up to ten seconds old when it is read, and clocks that nobody steers drift.
CLOCKS_DIFFER = 30.0


def key(host: Host) -> str:
    return f"{host.queue}:alive"


def fresh_key(host: Host) -> str:
    return f"{host.queue}:fresh"


def reach_key(host: Host) -> str:
    return f"{host.queue}:reach"


def read(hosts: Sequence[Host]) -> dict[int, dict[str, Any]]:
    """What each living host last said of itself, by primary key; one that is down is not in it."""
    values = _values([key(host) for host in hosts])
    return {host.pk: _parsed(value) for host, value in zip(hosts, values, strict=True) if value}


def fresh(hosts: Sequence[Host]) -> set[int]:
    """The hosts (primary keys) that were heard just now, and may get new clients."""
    values = _values([fresh_key(host) for host in hosts])
    return {host.pk for host, value in zip(hosts, values, strict=True) if value}


def ways(hosts: Sequence[Host]) -> dict[int, dict[str, Reach]]:
    """What each living host (primary key) last said of its ways to others, by their public ids. One that says nothing
    of them is not in it."""
    values = _values([reach_key(host) for host in hosts])
    return {host.pk: reach_from_json(value) for host, value in zip(hosts, values, strict=True) if value}


def _values(keys: Sequence[str]) -> list[str | None]:
    if not keys:
        return []
    try:
        values: list[str | None] = own_connection().call("MGET", *keys)
    except redis.RedisError as error:
        raise RedisUnavailable from error
    return values


def _parsed(value: str) -> dict[str, Any]:
    # A host is not trusted to write well: whatever is there, the key itself says that it lives.
    try:
        data = json.loads(value)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a heartbeat says of the machine, as far as it can be read. ``load`` is programs that wanted to run, for each
    processor; ``traffic`` is bytes from clients and to clients, by the server's public id."""

    load: float | None = None
    peers: int | None = None
    worker: str = ""
    traffic: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def vitals(beat: object) -> Vitals:
    """A host is not trusted to write well."""
    if not isinstance(beat, Mapping):
        return Vitals()
    load, peers, traffic = number(beat.get("load")), number(beat.get("peers")), beat.get("traffic")
    return Vitals(
        load=load,
        peers=None if peers is None else int(peers),
        worker="".join(each for each in str(beat.get("worker", "")) if each.isprintable())[:32],
        traffic={
            str(server): (int(received), int(sent))
            for server, each in (traffic.items() if isinstance(traffic, Mapping) else ())
            if isinstance(each, list) and len(each) == 2
            if (received := number(each[0])) is not None and (sent := number(each[1])) is not None
        },
    )


def ahead(beat: Mapping[str, Any], now: float) -> float:
    """By how many seconds that host's clock is ahead of ours (negative: behind); 0 where it is as ours, as far as can
    be told."""
    try:
        seconds = float(beat.get("time", now)) - now
    except (TypeError, ValueError, OverflowError):  # a host is not trusted to write well
        return 0.0
    return seconds if math.isfinite(seconds) and abs(seconds) >= CLOCKS_DIFFER else 0.0


def clock_difference(host: Host, beat: object, now: float) -> float | None:
    """As ``ahead``, but exactly, also where it is little: with how old the heartbeat is, by what is left of its time.
    None where that cannot be told. Raise ``RedisUnavailable``."""
    said = beat.get("time") if isinstance(beat, Mapping) else None
    if isinstance(said, bool) or not isinstance(said, int | float) or not math.isfinite(said):
        return None
    try:
        left = int(own_connection().call("PTTL", key(host)))
    except redis.RedisError as error:
        raise RedisUnavailable from error
    if left < 0:
        return None
    return float(said) - (now - (ALIVE_FOR - left / 1000))


def conditions(host: Host, beat: object, now: float) -> list[dict[str, Any]]:
    """What is wrong on the machine: as it reported, and what we see in its last heartbeat."""
    if not isinstance(beat, Mapping):
        return list(host.conditions)
    found = [each for each in (_clock_off(beat, now), _outdated(beat)) if each is not None]
    return [*conditions_to_json(found), *host.conditions]


def _clock_off(beat: Mapping[str, Any], now: float) -> HostCondition | None:
    seconds = ahead(beat, now)
    if not seconds:
        return None
    text = (
        f"This machine's clock is {abs(seconds):.0f} seconds {'ahead' if seconds > 0 else 'behind'}, by the control"
        " side's. Tunnels do not depend on it, but DNS over TLS and the times in its log do: have it set by NTP."
    )
    return HostCondition.of(Code.CLOCK_OFF, text)


def is_outdated(beat: Mapping[str, Any]) -> bool:
    """Whether its worker does not understand all messages of this release."""
    speaks = beat.get("speaks", FORMAT)
    return type(speaks) is not int or speaks < FORMAT


def _outdated(beat: Mapping[str, Any]) -> HostCondition | None:
    if not is_outdated(beat):
        return None
    text = (
        "This machine's worker is of an older release and refuses what it does not understand. Its tunnels run on; "
        "drain the host, bring its worker to this release and start it again."
    )
    return HostCondition.of(Code.WORKER_OUTDATED, text)
