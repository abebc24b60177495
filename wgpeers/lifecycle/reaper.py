"""Revoking what is overdue. One step handles what is due at ``now`` and says how much it was, so that tests call it
without a loop or a broker."""

from __future__ import annotations

import logging

from django.conf import settings
from django.db.models import Exists, OuterRef, Q
from django.db.models.expressions import Combinable

from core.clock import moment
from core.redis_store import redis_client
from servers import access, networks
from servers.models import Address, Server, ServerHost
from wgpeers.models import Connection, EndReason, State

from . import clock_steps, liveness
from .ending import end

log = logging.getLogger(__name__)

# How many overdue connections one step takes; a sweep goes on until a step finds fewer.
BATCH = 500
# Connections that one sweep looks at whether they have a deadline.
CHECKED_AT_ONCE = 2000


def sweep(now: float) -> int:
    """End all that is overdue at ``now``; how many it were."""
    clock_steps.follow(now)
    if liveness.lost_memory():
        refill(now)
    add_missing_deadlines(now)
    ended = 0
    while (step := sweep_silent(now)) is not None:
        ended += step
    return ended + sweep_sessions(now) + sweep_pending(now)


def refill(now: float) -> None:
    """Redis lost its memory: a full deadline for everybody who is connected, before anybody is swept."""
    log.warning("Redis has lost its memory; deadlines are filled in from the database")
    live = Connection.objects.exclude(state=State.ENDED).values_list("public_id", "server__ping_timeout")
    liveness.refill((connection, now + timeout) for connection, timeout in live.iterator())


def add_missing_deadlines(now: float) -> None:
    """A connection without a deadline would live for ever: one that a restored database brought back, one whose start
    was lost. Some are looked at with each sweep, all of them in turn."""
    after = int(redis_client().get(liveness.CHECKED) or 0)
    live = Connection.objects.exclude(state=State.ENDED).filter(pk__gt=after).order_by("pk")
    rows = list(live.values_list("pk", "public_id", "server__ping_timeout")[:CHECKED_AT_ONCE])
    found = liveness.add_missing(((name, timeout) for _, name, timeout in rows), now)
    if found:
        log.warning("%d connections had no deadline, for example %s", len(found), found[0])
    redis_client().set(liveness.CHECKED, rows[-1][0] if len(rows) == CHECKED_AT_ONCE else 0)


def sweep_silent(now: float) -> int | None:
    """One batch of connections whose last ping is too long ago; None when there are none left to end."""
    due = dict(liveness.overdue(now, BATCH))
    if not due:
        return None
    rows = Connection.objects.select_related("server").filter(public_id__in=due).exclude(state=State.ENDED)
    live = {row.public_id: row for row in rows}
    liveness.forget(due.keys() - live.keys())
    ended = 0
    for name, row in live.items():
        # A ping may have come since the batch was read.
        until = liveness.deadline(name)
        if until is None or until <= now:
            # Never confirmed: then its key was not spent either.
            reason = EndReason.UNCONFIRMED if row.state == State.PENDING else EndReason.SILENT
            ended += end([row], reason, now, due=due[name])
    # Nothing of a whole batch could be ended: stop here rather than try the same rows for ever.
    return ended if ended or len(live) < len(due) else None


def sweep_sessions(now: float) -> int:
    """Connections whose session time is over."""
    over = Connection.objects.select_related("server").filter(state=State.OPEN, session_ends__lte=moment(now))
    return sum(
        end([row], EndReason.SESSION, now, due=row.session_ends.timestamp() if row.session_ends else None)
        for row in over[:BATCH]
    )


def sweep_pending(now: float) -> int:
    """Connections whose request died before a host confirmed them (the web was killed)."""
    lost = Connection.objects.select_related("server").filter(
        state=State.PENDING, created__lte=moment(now - settings.PENDING_TIMEOUT)
    )
    return end(lost[:BATCH], EndReason.UNCONFIRMED, now)


def enforce(now: float) -> int:
    """End connections that would no longer be allowed, or that the settings no longer fit. Cheap enough to run
    after every change of an account, and on a slow beat for whatever changed past the models."""
    live = Connection.objects.select_related("server").exclude(state=State.ENDED)
    return (
        end(live.filter(_not_running()), EndReason.STOPPED, now)
        + end(live.exclude(access.permitted()), EndReason.NOT_PERMITTED, now)
        + end(_moved(), EndReason.MOVED, now)
    )


def _not_running() -> Combinable | Q:
    attached = ServerHost.objects.filter(server=OuterRef("server"), host=OuterRef("host"))
    return Q(server__started=False) | Q(server__wireguard=False) | Q(host__enabled=False) | ~Exists(attached)


def _moved() -> list[Connection]:
    """Connections whose address is no longer their user's, or no longer in their server's network."""
    live = Connection.objects.select_related("server").exclude(state=State.ENDED)
    holds = Address.objects.filter(server=OuterRef("server"), host_part=OuterRef("host_part"), user=OuterRef("user"))
    moved = {row.pk: row for row in live.filter(~Exists(holds))}
    for server in Server.objects.filter(connections__in=live).distinct():
        for row in live.filter(server=server):
            if _addresses(server, row.host_part) != (row.address, row.address6):
                moved[row.pk] = row
    return list(moved.values())


def _addresses(server: Server, host_part: int) -> tuple[str, str | None] | None:
    """What host part ``host_part`` has on the server now; None where its networks no longer reach that far."""
    try:
        address6 = networks.address(server.network6, host_part) if server.ipv6 else None
        return networks.address(server.wg_network, host_part), address6
    except IndexError:
        return None
