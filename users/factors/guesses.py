"""Wrong attempts of one user, kept in the database: after each budget that is used up comes a pause twice as long.

A PIN is short, and who holds a profile may guess at it for ever. The budgets in Redis (``core.rate_limits``) bound a
burst; they are whole again after ten minutes, and gone with Redis. What is counted here is neither: in the long run a
guesser has one budget a day.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction

from core import rate_limits
from core.clock import moment
from core.locking import lock
from core.pace import Pace
from core.pruning import delete_old
from users.models import VpnUser, WrongAttempts

LONGEST_PAUSE = timedelta(days=1)
# Without a wrong attempt, and without a pause: what was before is forgotten.
SILENCE = timedelta(days=1)


def of(user: VpnUser) -> WrongAttempts | None:
    """Read anew each time: an attempt a moment ago may have been wrong."""
    return WrongAttempts.objects.filter(user_id=user.pk).first()


def pause_left(row: WrongAttempts | None, now: float) -> int:
    """Whole seconds until the user may try again; 0: now."""
    if row is None or row.paused_until is None:
        return 0
    return max(0, -int((moment(now) - row.paused_until).total_seconds() // 1))


@transaction.atomic
def count_wrong(user: VpnUser, kinds: Collection[str], now: float) -> None:
    """Note that the secrets for factors of these ``kinds`` were not all right."""
    lock(user)
    row = of(user)
    if row is None or _is_forgotten(row, moment(now)):
        WrongAttempts.objects.filter(user_id=user.pk).delete()
        row = WrongAttempts(user_id=user.pk, count=0)
    row.count += 1
    row.kinds = sorted({*row.kinds, *kinds})
    row.last = moment(now)
    budgets, rest = divmod(row.count, settings.ATTEMPTS_PER_USER)
    if not rest:
        row.paused_until = moment(now) + _pause(budgets)
    row.save()


def _pause(budgets: int) -> timedelta:
    """After so many budgets that were used up."""
    first = timedelta(seconds=settings.ATTEMPTS_WINDOW)
    doubled = min(budgets - 1, 20)  # far beyond the longest, and no number that grows for ever
    return min(first * (1 << doubled), LONGEST_PAUSE)


def _is_forgotten(row: WrongAttempts, now: datetime) -> bool:
    return now > max(row.last, row.paused_until or row.last) + SILENCE


def forgive(row: WrongAttempts, passed: Collection[str]) -> None:
    """Forget the wrong attempts if all that was wrong in them may be among what ``passed`` now. Else who has the
    authenticator could pass on a server that asks for that alone, and go on guessing the PIN of another."""
    if set(row.kinds) <= set(passed):
        WrongAttempts.objects.filter(pk=row.pk).delete()


def lift(user: VpnUser) -> None:
    """Let the user try again now. Raise ``RedisUnavailable``, and change nothing, where Redis cannot be told."""
    rate_limits.forget(user.public_id)
    WrongAttempts.objects.filter(user_id=user.pk).delete()


def prune(now: float, pace: Pace) -> None:
    """Delete what is forgotten by now."""
    before = moment(now) - SILENCE
    delete_old(WrongAttempts.objects.filter(last__lt=before).exclude(paused_until__gte=before), pace)
