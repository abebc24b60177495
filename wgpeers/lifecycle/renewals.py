"""A session that nears its end is continued by a new key, before the old one ends.

What such an attempt has to pass is what it would have to pass at that end: what is remembered until then stands for
nothing, what is passed now counts as passed then. So who renews a little early is asked no less often than others.
"""

from __future__ import annotations

from dataclasses import replace

from users.factors.base import Attempt
from wgpeers.models import Connection, State

from .accounts import Account

# Seconds before the end of a session. Sooner, a new key is a new connection like any other, and moves no time.
AHEAD = 900.0
# Seconds for which a host lets the old key go on while the new one makes its first handshake.
HAND_OVER = 10.0


def continued(account: Account, attempt: Attempt) -> Connection | None:
    """The open connection of this very device that ``attempt`` continues."""
    if not attempt.renews:
        return None
    mine = Connection.objects.filter(user=account.user, server=account.server, device_id=attempt.device_id)
    rows = mine.filter(state=State.OPEN, wg_public_key=attempt.renews)
    return rows.exclude(state=State.ENDED).first()  # said twice, for the index of live ones


def to_be_judged(account: Account, attempt: Attempt, now: float) -> Attempt:
    """``attempt`` as it is to be judged: at the end of the session that it renews, where that is near."""
    row = continued(account, attempt)
    ends = row.session_ends.timestamp() if row is not None and row.session_ends is not None else 0.0
    return replace(attempt, counts_from=ends if now < ends <= now + AHEAD else 0.0)
