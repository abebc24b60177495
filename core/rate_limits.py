"""Attempt budgets: how many wrong second factors one user, and one address, may offer before a pause.

Kept in Redis, counted before the factor is looked at (so that a burst of parallel guesses counts in full) and
given back when it was right. What one user guesses in the long run is bounded elsewhere (``users.factors.guesses``); of
an address, losing the count with Redis gives a guesser little. Pings have no budget: they carry no factor.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import redis
from django.conf import settings

from .redis_store import RedisUnavailable, redis_client

# One script, so that the check and the count are one step. A budget that is used up is not counted further: its
# pause ends ATTEMPTS_WINDOW after the first attempt, whatever is tried meanwhile.
_RESERVE = """
local pause = -1
for i, key in ipairs(KEYS) do
  if tonumber(redis.call('GET', key) or '0') >= tonumber(ARGV[i]) then
    pause = math.max(pause, redis.call('PTTL', key), 0)
  end
end
if pause >= 0 then return pause end
for _, key in ipairs(KEYS) do
  if redis.call('INCR', key) == 1 then redis.call('EXPIRE', key, ARGV[#KEYS + 1]) end
end
return -1
"""
_GIVE_BACK = """
for i, key in ipairs(KEYS) do
  if tonumber(redis.call('GET', key) or '0') > 0 then redis.call('DECR', key) end
end
"""


class TooManyAttempts(Exception):
    """``retry_after``: whole seconds until the budget is whole again."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many attempts; try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Reservation:
    keys: tuple[str, ...]

    def give_back(self) -> None:
        try:
            redis_client().eval(_GIVE_BACK, len(self.keys), *self.keys)
        except redis.RedisError as error:
            raise RedisUnavailable from error


def network_of(address: str) -> str:
    """What counts as one address: an IPv4 address, or an IPv6 /64, of which one customer has all."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def reserve(user: str, address: str) -> Reservation:
    """Count one attempt of ``user`` (public id) from ``address``, or raise ``TooManyAttempts``."""
    keys = (_of_user(user), f"attempts:address:{network_of(address)}")
    limits = (settings.ATTEMPTS_PER_USER, settings.ATTEMPTS_PER_ADDRESS)
    try:
        left = int(redis_client().eval(_RESERVE, len(keys), *keys, *limits, settings.ATTEMPTS_WINDOW))
    except redis.RedisError as error:
        raise RedisUnavailable from error
    if left >= 0:
        raise TooManyAttempts(max(1, -(-left // 1000)))
    return Reservation(keys)


def forget(user: str) -> None:
    """Make the budget of ``user`` (public id) whole again; that of an address stays as it is."""
    try:
        redis_client().delete(_of_user(user))
    except redis.RedisError as error:
        raise RedisUnavailable from error


def _of_user(user: str) -> str:
    return f"attempts:user:{user}"


def count_view(kind: str, address: str, per_minute: int) -> bool:
    """Whether ``address`` may do one more of ``kind`` within this minute."""
    return _count(f"views:{kind}:{network_of(address)}", per_minute, 60)


def count_of(kind: str, subject: str, most: int, seconds: int) -> bool:
    """Whether ``subject`` (any name of ours) may do one more of ``kind`` within these seconds."""
    return _count(f"counts:{kind}:{subject}", most, seconds)


def _count(key: str, most: int, seconds: int) -> bool:
    try:
        with redis_client().pipeline() as pipe:
            pipe.incr(key)
            pipe.expire(key, seconds, nx=True)
            return int(pipe.execute()[0]) <= most
    except redis.RedisError as error:
        raise RedisUnavailable from error
