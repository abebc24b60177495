"""Wrong attempts of one user, kept in the database: after each budget that is used up comes a pause twice as long.

A PIN is short, and who holds a profile may guess at it for ever. The budgets in Redis (``core.rate_limits``) bound a
burst; they are whole again after ten minutes, and gone with Redis. What is counted here is neither: in the long run a
guesser has one budget a day.
"""

from __future__ import annotations

from collections.abc import Collection

from django.conf import settings
from django.db import transaction

from core import rate_limits
from core.clock import moment
from core.locking import lock
from core.pace import Pace
from core.pauses import SILENCE, is_forgotten, pause_after, seconds_left
from core.pruning import delete_old
from users.models import VpnUser, WrongAttempts


def of(user: VpnUser) -> WrongAttempts | None:
    """Read anew each time: an attempt a moment ago may have been wrong."""
    return WrongAttempts.objects.filter(user_id=user.pk).first()


def pause_left(row: WrongAttempts | None, now: float) -> int:
    """Whole seconds until the user may try again; 0: now."""
    return seconds_left(row.paused_until, now) if row else 0


@transaction.atomic
def count_wrong(user: VpnUser, kinds: Collection[str], now: float) -> None:
    """Note that the secrets for factors of these ``kinds`` were not all right."""
    lock(user)
    row = of(user)
    if row is None or is_forgotten(row.last, row.paused_until, moment(now)):
        WrongAttempts.objects.filter(user_id=user.pk).delete()
        row = WrongAttempts(user_id=user.pk, count=0)
    row.count += 1
    row.kinds = sorted({*row.kinds, *kinds})
    row.last = moment(now)
    budgets, rest = divmod(row.count, settings.ATTEMPTS_PER_USER)
    if not rest:
        row.paused_until = moment(now) + pause_after(budgets)
    row.save()


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
