"""Every Redis, and every Sentinel, that has to know its users: none of them tells another one of its own.

The product's own Redis is one. Of a Redis elsewhere there may be replicas, of which each may be master in a moment, and
Sentinels, which hosts ask where the master is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from core.redis_store import own_connection
from servers.hostnet.state import redis_connections
from servers.hostnet.state.redis_urls import is_sentinel, sentinels

log = logging.getLogger(__name__)

WITHIN = 2.0  # seconds for one of several to answer


@dataclass(frozen=True, slots=True)
class Store:
    """``name`` is for people. ``call`` sends it one command, as the user of ``REDIS_URL``; ``stranger`` says PING
    without a login."""

    name: str
    call: Callable[..., Any]
    stranger: Callable[[], Any]
    sentinel: bool = False

    def lets_anybody_in(self) -> bool:
        try:
            return bool(self.stranger())
        except redis.RedisError:
            return False


def every_store() -> list[Store]:
    """The Redis that takes changes first. Raise ``redis.RedisError`` where it, or all Sentinels, are away."""
    url = str(settings.REDIS_URL)
    if not is_sentinel(url):
        return [Store("Redis", own_connection().call, _without_login(url))]
    found, watchers = sentinels(url), redis_connections.watchers(url)
    master = watchers.discover_master(found.master)
    return [
        *(_store(each, "Redis", found.login.options()) for each in (master, *watchers.replicas(found.master))),
        *(_store(each, "Sentinel", found.own_login.options()) for each in found.addresses),
    ]


def _store(address: tuple[str, int], kind: str, login: dict[str, str]) -> Store:
    client, stranger = _client(address, **login), _client(address)
    name = f"{kind} at {address[0]}:{address[1]}"
    return Store(name, client.execute_command, stranger.ping, sentinel=kind == "Sentinel")


def _client(address: tuple[str, int], **login: str) -> redis.Redis:
    limits: dict[str, Any] = {"socket_timeout": WITHIN, "socket_connect_timeout": WITHIN}
    host, port = address
    client = redis.Redis(host, port, **login, **limits, retry=Retry(NoBackoff(), 0), decode_responses=True)  # type: ignore[arg-type]
    client.response_callbacks.clear()  # plain answers, as of the connections that are ours alone
    return client


def _without_login(url: str) -> Callable[[], Any]:
    """PING to the Redis of ``url`` by somebody who is nobody there."""
    options = redis.ConnectionPool.from_url(url).connection_kwargs
    kinds: dict[str, Any] = {"unix": redis.UnixDomainSocketConnection, "rediss": redis.SSLConnection}
    kind = kinds.get(url.partition("://")[0], redis.Connection)
    kept = {name: value for name, value in options.items() if name not in ("username", "password")}
    pool = redis.ConnectionPool(kind, **{**kept, "socket_timeout": WITHIN, "socket_connect_timeout": WITHIN})
    return redis.Redis.from_pool(pool).ping


def those_that_answer(stores: list[Store]) -> Iterator[Store]:
    """All but those that are away, except the first, without which nothing is done: raise ``redis.RedisError`` for
    that. One that is away learns what is to be later, by ``redis_access.sync``."""
    for number, store in enumerate(stores):
        try:
            store.call("PING")
        except (redis.AuthenticationError, redis.ResponseError):
            yield store  # it is there, and refuses the next as well, in its own words
            continue
        except redis.RedisError as error:
            if number == 0:
                raise
            log.warning("%s does not answer (%s): it learns of its users later", store.name, type(error).__name__)
            continue
        yield store
