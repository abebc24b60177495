"""Judging a code that an administrator typed: of their authenticator app, or a recovery code."""

from __future__ import annotations

from contextlib import suppress

from django.contrib.auth.models import User
from django.db import transaction

from core import rate_limits
from core.locking import lock
from core.redis_store import RedisUnavailable

from . import audit, authenticator, guesses, recovery

AUTHENTICATOR, RECOVERY = "authenticator", "recovery code"
WRONG = "That code is wrong, or was used already. Wait for the app's next one, or use a recovery code."


class CodeRefused(Exception):
    """Its text is for the administrator."""


def offer(administrator: User, code: str, address: str, now: float) -> str:
    """Which kind of code it is, used up by this. Raise ``CodeRefused`` for any that does not pass.

    Counted before it is looked at, so that a burst of guesses counts in full.
    """
    try:
        reserved = rate_limits.reserve(guesses.budget_of(administrator), address)
    except rate_limits.TooManyAttempts as error:
        raise CodeRefused(_pause(error.retry_after)) from None
    except RedisUnavailable:
        raise CodeRefused("Attempts cannot be counted, because Redis is down.") from None
    kind, pause = _judge(administrator, code, address, now)
    if pause:
        raise CodeRefused(_pause(pause))
    if not kind:
        raise CodeRefused(WRONG)
    with suppress(RedisUnavailable):  # it passed, and is used up
        reserved.give_back()
    return kind


@transaction.atomic
def _judge(administrator: User, code: str, address: str, now: float) -> tuple[str, int]:
    """What kind of code it was, empty for none; and the seconds for which none is looked at."""
    lock(administrator)
    if pause := guesses.pause_left(administrator, now):
        return "", pause
    # No code is of both kinds. An app's secret that no key opens any more keeps no recovery code from passing.
    kind = RECOVERY if recovery.plain(code) else AUTHENTICATOR
    if kind == AUTHENTICATOR:
        right = authenticator.claim(administrator, code, now)
    else:
        right = recovery.claim(administrator, code, now)
    if not right:
        _note_wrong(administrator, address, now)
        return "", 0
    if kind == RECOVERY:
        audit.note(administrator, f"Used a recovery code from {address}; {recovery.left(administrator)} are left.")
    guesses.forgive(administrator)
    return kind, 0


def _note_wrong(administrator: User, address: str, now: float) -> None:
    row = guesses.count_wrong(administrator, now)
    if row.paused_until is not None and guesses.pause_left(administrator, now):
        until = f"{row.paused_until:%Y-%m-%d %H:%M:%S} UTC"
        words = f"{row.count} wrong codes, the last from {address}; none passes until {until}."
        audit.note(administrator, words)


def _pause(seconds: int) -> str:
    return (
        f"Too many wrong codes. Try again in {-(-seconds // 60)} minutes, or have another administrator end the wait."
    )
