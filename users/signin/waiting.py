"""Holding a client until its user has signed in."""

from __future__ import annotations

import threading
import time

import redis
from django.conf import settings

from core import clock
from core.letting_go import let_go_of_database
from core.redis_store import RedisUnavailable, redis_client
from users.models import SignIn, VpnUser

from . import sign_ins

# Seconds between two looks at the database, for who misses the bell.
LOOK_AGAIN = 2

_lock = threading.Lock()
_held = 0


def still_waits(user: VpnUser, token: str) -> bool:
    """Hold for at most ``SIGN_IN_HOLD``; whether the sign-in with this token has no outcome even then. False, too, for
    a token that is nobody's. Where as many are held as may be, say so at once. Raise ``RedisUnavailable``."""
    sign_in = sign_ins.waiting(user, token, clock.now())
    if sign_in is None or not _take():
        return sign_in is not None
    try:
        deadline = time.monotonic() + settings.SIGN_IN_HOLD
        while sign_in and (left := deadline - time.monotonic()) > 0:
            _listen(sign_in, min(left, LOOK_AGAIN))
            sign_in = sign_ins.waiting(user, token, clock.now())
        return sign_in is not None
    finally:
        _give_back()


def _listen(sign_in: SignIn, seconds: float) -> None:
    let_go_of_database()
    try:
        redis_client().blpop([sign_ins.bell(sign_in)], timeout=max(seconds, 0.01))
    except redis.RedisError as error:
        raise RedisUnavailable from error


def _take() -> bool:
    global _held
    with _lock:
        if _held >= settings.SIGN_INS_HELD:
            return False
        _held += 1
        return True


def _give_back() -> None:
    global _held
    with _lock:
        _held -= 1
