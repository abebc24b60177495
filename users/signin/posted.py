"""Answers that a provider has the browser post to us (SAML).

A browser sends no cookie of ours with a form that another site made it send, so nobody knows yet which browser it is.
What it brought is kept under its state, and the browser sent on to ``/sso/back``, where it does show the cookie: an
answer is looked at only there.
"""

from __future__ import annotations

import redis

from core.crypto import keyed_hash
from core.redis_store import RedisUnavailable, redis_client

from .sign_ins import LIFETIME

# Characters; also what the front lets through.
LONGEST = 64 * 1024


def keep(state: str, answer: str) -> None:
    """``state`` must be one of an open sign-in, or strangers could fill the store. Raise ``RedisUnavailable``."""
    try:
        redis_client().set(_key(state), answer, ex=LIFETIME)
    except redis.RedisError as error:
        raise RedisUnavailable from error


def take(state: str) -> str:
    """Once; empty where there is none. Raise ``RedisUnavailable``."""
    try:
        return str(redis_client().getdel(_key(state)) or "")
    except redis.RedisError as error:
        raise RedisUnavailable from error


def is_new(*name: str, seconds: float) -> bool:
    """Whether nobody has said ``name`` for so long. Raise ``RedisUnavailable``."""
    try:
        return bool(redis_client().set(f"said:{keyed_hash('said', *name)}", 1, nx=True, ex=max(1, int(seconds))))
    except redis.RedisError as error:
        raise RedisUnavailable from error


def _key(state: str) -> str:
    return f"posted:{keyed_hash('posted answer', state)}"
