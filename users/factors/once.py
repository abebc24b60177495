"""Asking somebody else at most once for one attempt.

A password that is wrong may cost its user one of few attempts there, and a code is good once. But clients send the same
attempt to the next host where an answer was late. So what was said of an attempt is kept for a while and said again,
for the very password alone; and while one request asks, another one of the same attempt waits for what it is told.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

import redis
from redis.exceptions import LockError

from core.crypto import keyed_hash
from core.letting_go import let_go_of_database
from core.redis_store import RedisUnavailable, redis_client

from .base import Case, Denied, Outcome, Passed, Unavailable

# Seconds; no client offers one attempt for longer.
KEPT = 600
# Seconds, beyond those that asking takes, after which nobody asks any more who has not said so.
GIVEN_UP = 10


def once(case: Case, secret: str, ask: Callable[[], Outcome], patience: float) -> Outcome:
    """What ``ask`` says of the attempt, now or before; that nobody could say is not kept. ``patience``: seconds, that
    asking takes at most. Raise ``RedisUnavailable``."""
    provider = case.asked.provider.public_id if case.asked.provider else ""
    name = keyed_hash("asked once", case.asked.kind, provider, case.user.public_id, case.attempt_hash, secret)
    key = f"asked:{name}"
    let_go_of_database()
    turn = redis_client().lock(f"{key}:turn", timeout=patience + GIVEN_UP)
    try:
        if not turn.acquire(blocking_timeout=patience + GIVEN_UP):
            return Unavailable()
        try:
            return _known(key) or _asked(key, ask)
        finally:
            # It took so long that the turn is over already, or somebody else's.
            with contextlib.suppress(LockError):
                turn.release()
    except redis.RedisError as error:
        raise RedisUnavailable from error


def _known(key: str) -> Outcome | None:
    stored = redis_client().get(key)
    if stored is None:
        return None
    passed, code, detail = json.loads(str(stored))
    return Passed(code) if passed else Denied(code, detail)


def _asked(key: str, ask: Callable[[], Outcome]) -> Outcome:
    outcome = ask()
    if isinstance(outcome, Passed | Denied):
        detail = outcome.detail if isinstance(outcome, Denied) else ""
        redis_client().set(key, json.dumps([isinstance(outcome, Passed), outcome.code, detail]), ex=KEPT)
    return outcome
