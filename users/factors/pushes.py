"""What holds for requests on a user's phone, whoever sends them: at most one that is open, and few in an hour. Who is
asked again and again says yes in the end.

In Redis: it is forgotten with it, which costs another request, and where Redis does not answer none is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis

from core.crypto import keyed_hash
from core.rate_limits import count_of
from core.redis_store import RedisUnavailable, redis_client
from users.models import VpnUser

# Seconds for which a request may be open: providers' own end after 60.
OPEN = 60
# A connect that waited ends within these seconds more; then the next request may be sent even if nobody ended this one.
GONE = OPEN + 30
PER_HOUR = 20
# Seconds for which what passed for an attempt passes for the same attempt again.
PASSED = 300

_END = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class NotSent(Exception):
    """The argument is why: ``push_open`` or ``too_many_pushes``."""


@contextmanager
def one_open(user: VpnUser, attempt: str) -> Iterator[None]:
    """While the request of ``attempt`` (its hash) is open. Raise ``NotSent``, ``RedisUnavailable``."""
    begin(user, attempt)
    try:
        yield
    finally:
        end(user, attempt)


def begin(user: VpnUser, attempt: str) -> None:
    """From now on a request of ``attempt`` is open, until its ``end`` or for ``GONE``. Raise as ``one_open``."""
    try:
        if not redis_client().set(_open(user), attempt, nx=True, ex=GONE):
            raise NotSent("push_open")
    except redis.RedisError as error:
        raise RedisUnavailable from error
    if not count_of("pushes", user.public_id, PER_HOUR, 3600):
        end(user, attempt)
        raise NotSent("too_many_pushes")


def end(user: VpnUser, attempt: str) -> None:
    """Another's stays. Raise ``RedisUnavailable``."""
    try:
        redis_client().eval(_END, 1, _open(user), attempt)
    except redis.RedisError as error:
        raise RedisUnavailable from error


def remember(user: VpnUser, kind: str, attempt: str, secret: str) -> None:
    """That ``secret`` (empty where nothing is typed) passed for ``attempt`` of ``user``. Raise ``RedisUnavailable``."""
    try:
        redis_client().set(_passed(user, kind, attempt, secret), 1, ex=PASSED)
    except redis.RedisError as error:
        raise RedisUnavailable from error


def is_remembered(user: VpnUser, kind: str, attempt: str, secret: str) -> bool:
    """Raise ``RedisUnavailable``."""
    try:
        return bool(redis_client().exists(_passed(user, kind, attempt, secret)))
    except redis.RedisError as error:
        raise RedisUnavailable from error


def _open(user: VpnUser) -> str:
    return f"push:{user.public_id}"


def _passed(user: VpnUser, kind: str, attempt: str, secret: str) -> str:
    return f"passed:{keyed_hash('passed', user.public_id, kind, attempt, secret)}"
