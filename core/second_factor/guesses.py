"""Wrong codes of an administrator, kept in the database: after each budget that is used up comes a pause twice as long.

The budget in Redis bounds a burst; this one bounds the long run, and survives Redis.
"""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.models import User

from core import rate_limits
from core.clock import moment
from core.models import AdminGuesses
from core.pace import Pace
from core.pauses import SILENCE, is_forgotten, pause_after, seconds_left
from core.pruning import delete_old


def budget_of(administrator: User) -> str:
    """The name of their budget in ``core.rate_limits``."""
    return f"second-factor:{administrator.pk}"


def pause_left(administrator: User, now: float) -> int:
    """Whole seconds until codes are looked at again; 0: now."""
    row = AdminGuesses.objects.filter(administrator=administrator).first()
    return seconds_left(row.paused_until, now) if row else 0


def count_wrong(administrator: User, now: float) -> AdminGuesses:
    """Note one. Within a transaction that holds the administrator's lock."""
    row = AdminGuesses.objects.filter(administrator=administrator).first() or AdminGuesses(administrator=administrator)
    if row.pk is None or is_forgotten(row.last, row.paused_until, moment(now)):
        row.count, row.paused_until = 0, None
    row.count += 1
    row.last = moment(now)
    budgets, rest = divmod(row.count, settings.ATTEMPTS_PER_USER)
    if not rest:
        row.paused_until = moment(now) + pause_after(budgets)
    row.save()
    return row


def forgive(administrator: User) -> None:
    AdminGuesses.objects.filter(administrator=administrator).delete()


def lift(administrator: User) -> None:
    """Let codes be tried now. Raise ``RedisUnavailable``, and change nothing, where Redis cannot be told."""
    rate_limits.forget(budget_of(administrator))
    forgive(administrator)


def prune(now: float, pace: Pace) -> None:
    """Delete what is forgotten by now."""
    before = moment(now) - SILENCE
    delete_old(AdminGuesses.objects.filter(last__lt=before).exclude(paused_until__gte=before), pace)
