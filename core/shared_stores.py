"""Whether database and Redis are such that a second control node could use them as well."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from django.conf import settings

_DATABASE = "Set DATABASE_URL to a PostgreSQL that every control node reaches, and move what is there into it first."
_REDIS = "Set REDIS_URL to a Redis that every control node reaches, or to the Sentinels of one."


def what_keeps_to_one_machine() -> list[str]:
    """In words, each with what to do; empty where a second control node may join. Who lets one join asks this first.

    One control node with many hosts needs none of it.
    """
    return [*of_database(settings.DATABASES["default"]), *of_redis(settings.REDIS_URL)]


def redis_is_ours() -> bool:
    """Whether it is the Redis that the product runs itself, on this machine."""
    return str(settings.REDIS_URL).startswith("unix:")


def of_database(config: Mapping[str, Any]) -> Iterator[str]:
    """``config`` is Django's."""
    if not str(config["ENGINE"]).endswith("postgresql"):
        yield f"The database is a file of this machine (SQLite), which no second control node can use. {_DATABASE}"
        return
    given = str(config.get("HOST") or config.get("OPTIONS", {}).get("host", ""))
    if not given or any(_is_here(host) for host in given.split(",")):
        yield f"The database is reached by a socket or a loopback address of this machine. {_DATABASE}"


def of_redis(url: str) -> Iterator[str]:
    # By hand: several Sentinels stand there with commas between them.
    authority = url.partition("://")[2].partition("?")[0].partition("/")[0]
    hosts = [_without_port(each) for each in authority.rpartition("@")[2].split(",")]
    if url.startswith("unix://") or any(_is_here(host) for host in hosts):
        yield f"Redis is reached by a socket or a loopback address of this machine. {_REDIS}"


def _without_port(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0]


def _is_here(host: str) -> bool:
    """Whether the name means another machine on each machine."""
    if host in ("", "localhost") or host.startswith(("/", "@")):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
