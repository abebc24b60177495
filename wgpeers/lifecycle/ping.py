"""The way of a ping: is this WireGuard key open for this user on this server? Then its deadline moves.

A client pings every 10 s, so what the database said about it is remembered for a minute. What is remembered never
refuses anybody: where it does not answer for the ping in every point, the database is asked. Nor does it keep anybody:
it counts only while this process hears from Redis who has ended (``keepalive``).
"""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings
from django.db import DatabaseError

from wgpeers.protocol import envelope
from wgpeers.protocol.envelope import Authentic
from wgpeers.protocol.errors import Refusal

from . import accounts
from .accounts import Ids, PingAccount
from .ending import ended_because
from .keepalive import keepalive
from .liveness import Ping

REMEMBERED = 60.0  # seconds
# Seconds while the database cannot be read: nobody can be disabled there meanwhile, and Redis still says who has ended.
WITHOUT_DATABASE = 300.0
# Of users who are connected and proved it; in memory about 3 KB each.
MOST_REMEMBERED = 16384


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the database said at ``read`` (Unix seconds), in this era of ``keepalive``."""

    account: PingAccount
    read: float
    era: int


_remembered: dict[Ids, Remembered] = {}


@dataclass(frozen=True, slots=True)
class Said:
    """Whether the key is open, and what seals the answer. ``ended_because``: in words, where its connection has ended;
    empty where there was none."""

    is_open: bool
    authentic: Authentic
    ended_because: str = ""


def ping(signed: envelope.Signed, ids: Ids, source: str | None, now: float) -> Said:
    """``source`` is where the request came from. Raise ``Refusal`` for one that is not proven."""
    if answer := _from_memory(signed, ids, source, now, REMEMBERED):
        return Said(True, answer)
    era = keepalive.era  # before the database is read: an end since then makes this reading void
    try:
        account = accounts.for_ping(*ids)
    except DatabaseError:
        if answer := _from_memory(signed, ids, source, now, WITHOUT_DATABASE):
            return Said(True, answer)
        raise
    authentic = envelope.authenticate(signed, account.credentials)
    plaintext = envelope.open_request(authentic, now, settings.CLOCK_WINDOW, remember_nonce=False)
    found = _of_open(plaintext, account, source, now, sure=True)
    if found is None:
        return Said(False, authentic, ended_because(ids, plaintext.text("wg_public_key")))
    keepalive.note(found)
    _remember(ids, Remembered(account, now, era))
    return Said(True, authentic)


def _from_memory(signed: envelope.Signed, ids: Ids, source: str | None, now: float, longest: float) -> Authentic | None:
    """What seals the answer "open", if what is remembered is enough to give it."""
    known = _remembered.get(ids)
    # Both ends, because a clock may be set back.
    if known is None or not 0 <= now - known.read < longest or not keepalive.trusted(known.era):
        return None
    try:
        authentic = envelope.authenticate(signed, known.account.credentials)
        plaintext = envelope.open_request(authentic, now, settings.CLOCK_WINDOW, remember_nonce=False)
        found = _of_open(plaintext, known.account, source, now, sure=False)
    except Refusal:
        return None
    if found is None or keepalive.has_ended(found.connection):
        return None
    keepalive.note(found)
    return authentic


def _of_open(
    plaintext: envelope.Plaintext, account: PingAccount, source: str | None, now: float, *, sure: bool
) -> Ping | None:
    """The ping, if it names the key of an open connection."""
    live = account.live.get(plaintext.text("wg_public_key"))
    if live is None:
        return None
    # What comes from the connection's own address has come through its tunnel: WireGuard lets nobody else send by it.
    own = source == live.address
    return Ping(live.connection, now + live.ping_timeout, plaintext.timestamp, sure, own)


def _remember(ids: Ids, known: Remembered) -> None:
    if len(_remembered) >= MOST_REMEMBERED:
        _remembered.clear()
    _remembered[ids] = known
