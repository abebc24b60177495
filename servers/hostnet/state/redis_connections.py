"""Connections to Redis, wherever its URL says that it is: the one place that knows how each kind is reached."""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool

from .redis_urls import is_sentinel, sentinels


class Watchers(Sentinel):
    """The Sentinels of one URL."""

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Where the master is. Raise ``MasterNotFoundError``, in fewer words than redis-py's."""
        try:
            host, port = super().discover_master(service_name)  # type: ignore[no-untyped-call]
        except MasterNotFoundError:
            raise MasterNotFoundError(f"no Sentinel names a master {service_name!r}") from None
        return str(host), int(port)

    def replicas(self, service_name: str) -> list[tuple[str, int]]:
        """Those of the master that answer. Raise ``redis.RedisError``."""
        return [(str(host), int(port)) for host, port in super().discover_slaves(service_name)]  # type: ignore[no-untyped-call]


def watchers(url: str) -> Watchers:
    """Of a ``sentinel://`` URL; the next one is asked at once where one does not answer."""
    found = sentinels(url)
    return Watchers(  # type: ignore[no-untyped-call]
        found.addresses,
        sentinel_kwargs={**found.own_options(), "retry": Retry(NoBackoff(), 0), "decode_responses": True},
    )


def pool(url: str, **options: Any) -> redis.ConnectionPool:
    """A pool for ``url`` (see ``redis_urls``), with redis-py's options of a connection.

    Under Sentinel each new connection asks where the master is, and one that finds itself at a Redis that is master no
    longer ends with ``redis.ConnectionError``, so that the next one asks again.
    """
    if not is_sentinel(url):
        return redis.ConnectionPool.from_url(url, **options)
    found = sentinels(url)
    return SentinelConnectionPool(  # type: ignore[no-untyped-call]
        found.master, watchers(url), db=found.database, **{**found.login.options(), **options}
    )


def client(url: str, **options: Any) -> redis.Redis:
    return redis.Redis.from_pool(pool(url, **options))
