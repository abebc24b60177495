"""The way of a ping: is this WireGuard key open for this user on this server? Then its deadline moves.

A client pings every 10 s, so what the database said about it is remembered for a minute. What is remembered never
refuses anybody, and keeps nobody: where it does not answer for the ping in every point, or Redis knows no deadline of
the connection (its end takes that away), the database is asked.
"""

from __future__ import annotations

from django.conf import settings

from wgpeers.protocol import envelope
from wgpeers.protocol.errors import Refusal

from . import accounts, liveness
from .accounts import Ids, LiveConnection, PingAccount

REMEMBERED = 60.0  # seconds
# Of users who are connected and proved it; in memory about 3 KB each.
MOST_REMEMBERED = 16384
_remembered: dict[Ids, tuple[PingAccount, float]] = {}


def ping(signed: envelope.Signed, ids: Ids, now: float) -> tuple[bool, envelope.Credentials]:
    """Whether the key is open, and what seals the answer. Raise ``Refusal`` for a request that is not proven, and
    ``RedisUnavailable``."""
    account, until = _remembered.get(ids, (None, 0.0))
    # Both ends, because a clock may be set back.
    if account and 0 < until - now <= REMEMBERED and _still_good(account, signed, now):
        return True, account.credentials
    account = accounts.for_ping(*ids)
    live, timestamp = _open(account, signed, now)
    if live is None:
        return False, account.credentials
    liveness.ping(live.connection, now + live.ping_timeout, timestamp)
    _remember(ids, account, now)
    return True, account.credentials


def _still_good(account: PingAccount, signed: envelope.Signed, now: float) -> bool:
    """Whether the deadline was moved by what is remembered alone."""
    try:
        live, timestamp = _open(account, signed, now)
    except Refusal:
        return False
    return live is not None and liveness.ping_again(live.connection, now + live.ping_timeout, timestamp)


def _open(account: PingAccount, signed: envelope.Signed, now: float) -> tuple[LiveConnection | None, int]:
    """The open connection whose key the ping names, and the ping's own time."""
    plaintext = envelope.open_request(signed, account.credentials, now, settings.CLOCK_WINDOW, remember_nonce=False)
    return account.live.get(plaintext.text("wg_public_key")), plaintext.timestamp


def _remember(ids: Ids, account: PingAccount, now: float) -> None:
    if len(_remembered) >= MOST_REMEMBERED:
        _remembered.clear()
    _remembered[ids] = account, now + REMEMBERED
