"""Ending connections: the row first, by a conditional update that only one can win, then Redis, then the hosts."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from functools import partial

import redis
from django.db import OperationalError, transaction

from core import task_names
from core.changes import after_commit
from core.clock import moment
from core.pace import Pace
from servers import addresses
from servers.changes import bump_versions
from servers.hostnet.state import RemovePeers
from servers.models import Host
from wgpeers.fleet import messages, remotes
from wgpeers.fleet.lingering import seconds_of
from wgpeers.models import Connection, EndReason, SpentKey, State
from wgpeers.protocol import envelope
from wgpeers.protocol.errors import Refusal

from . import decisions, liveness, site_failover
from .accounts import Ids

log = logging.getLogger(__name__)

# Of many connections that end together: hosts are told of some, while the others are still being ended.
TOLD_AT_ONCE = 50

# Which layer a decision names for each reason.
LAYER = {
    EndReason.SILENT: "liveness",
    EndReason.SIGN_IN: "sign_in",
    EndReason.SESSION: "session",
    EndReason.ADMIN: "admin",
    EndReason.BY_USER: "own_page",
    EndReason.DEVICE_REVOKED: "own_page",
    EndReason.UNCONFIRMED: "host",
    EndReason.DRAINED: "host",
    EndReason.REPLACED: "connect",
    EndReason.ELSEWHERE: "connect",
}


def ended_because(ids: Ids, wg_public_key: str) -> str:
    """Why the user's connection with this key has ended, in words for them; empty where there was none.

    Only for whom all proofs have shown to be this user: how another's connection ended is not their business."""
    try:
        digest = hashlib.sha256(envelope.wireguard_key(wg_public_key)).digest()
    except Refusal:
        return ""
    _organization, user, server = ids
    mine = Connection.objects.filter(user__public_id=user, server__public_id=server, state=State.ENDED)
    # By the one index that finds a key among all that ever were.
    row = mine.filter(spent_keys__digest=digest).order_by().first()
    return row.get_end_reason_display() if row else ""


def mark_ended(connection: Connection, reason: EndReason, now: float, due: float | None = None) -> bool:
    """Mark the row ended if nobody else has, release its address and write the decision, inside the caller's
    transaction. Raising the host's version and telling the host is the caller's part."""
    connection.end_reason = reason
    ended = Connection.objects.filter(pk=connection.pk).exclude(state=State.ENDED)
    if reason == EndReason.UNCONFIRMED:
        ended = ended.filter(state=State.PENDING)
    fields = {"state": State.ENDED, "ended": moment(now), "due": moment(now if due is None else due)}
    if not ended.update(end_reason=reason, **fields):
        return False
    if reason == EndReason.UNCONFIRMED:
        # Never allowed, so never spent: the client may offer the same key to the next host.
        SpentKey.objects.filter(connection=connection).delete()
    addresses.release(connection.server_key, connection.host_part)
    decisions.record_end(connection, LAYER.get(reason, "policy"), now, connection.end_detail)
    return True


def end(
    connections: Iterable[Connection],
    reason: EndReason,
    now: float,
    due: float | None = None,
    pace: Pace | None = None,
) -> int:
    """End each connection that is still live, and have its host remove the peer, some of them at a time. How many it
    were. What is left when the turn of ``pace`` is over stays.

    One transaction each: a row that cannot be ended (reported in the log) does not hold up the others. Networks behind
    it go to their standbys in the same one.
    """
    count, untold = 0, list[Connection]()
    pace, in_turns = pace or Pace(), pace is not None
    for connection in connections:
        # Somebody in each turn, however long it took to find them.
        if in_turns and pace.over and count:
            break
        if _end_one(connection, reason, now, due):
            untold.append(connection)
            count += 1
        if len(untold) == TOLD_AT_ONCE:
            _tell_after_commit(untold)
            untold = []
        pace.breathe()
    _tell_after_commit(untold)
    return count


def _tell_after_commit(ended: list[Connection]) -> None:
    """Not before the caller's own transaction, if there is one, has committed."""
    if ended:
        transaction.on_commit(partial(notify_hosts, ended), robust=True)


def _end_one(connection: Connection, reason: EndReason, now: float, due: float | None) -> bool:
    """Whether it was still live and has ended now."""
    try:
        with transaction.atomic():
            if not mark_ended(connection, reason, now, due):
                return False
            moved = site_failover.elect_for_user(connection.server_key, connection.user_id, now)
            bump_versions([*([connection.host_id] if connection.host_id else []), *moved])
            for host in sorted(moved):
                after_commit(task_names.CONVERGE, host)
    except OperationalError as error:
        # A full disk, say: it is the same for all of them, and for the log.
        log.error("could not end connection %s (%s); the next sweep tries again", connection.public_id, error)
        return False
    except Exception:
        log.exception("could not end connection %s; the next sweep tries again", connection.public_id)
        return False
    return True


def notify_hosts(ended: Sequence[Connection], except_on: int | None = None) -> None:
    """After commit: forget the deadlines and have the hosts remove the peers, some of them once they were told (see
    ``fleet.lingering``), except host ``except_on``, which learns of it by another message.

    What fails here is made up for: a deadline without a live row is dropped by the sweep, a peer without one is
    removed by the host's next full state.
    """
    if not ended:
        return
    try:
        liveness.forget(connection.public_id for connection in ended)
    except redis.RedisError as error:
        log.warning("could not forget deadlines (%s)", type(error).__name__)
    remotes.note_ended(ended)
    by_host: dict[int, dict[int, list[str]]] = {}
    for connection in ended:
        if connection.host_id and connection.host_id != except_on:
            by_time = by_host.setdefault(connection.host_id, {})
            # Of a server that was deleted no interface is left to be told through.
            seconds = seconds_of(connection, connection.server) if connection.server else 0
            by_time.setdefault(seconds, []).append(connection.public_id)
    for host in Host.objects.filter(pk__in=by_host):
        for seconds, names in by_host[host.pk].items():
            # The version as it is now is at least that of these changes; a later one is only more careful.
            messages.send_removal(host, RemovePeers(host.version, tuple(names), lingers=seconds))
