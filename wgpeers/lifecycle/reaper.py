"""Revoking what is overdue. One step handles what is due at ``now`` and says how much it was, so that tests call it
without a loop or a broker."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from django.conf import settings
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.expressions import Combinable

from core.clock import moment
from core.pace import Pace
from core.redis_store import redis_client
from servers import access, networks
from servers.models import Address, Server, ServerHost
from users.models import Device, DeviceKey
from wgpeers.models import Connection, EndReason, State, live_on

from . import clock_steps, liveness
from .ending import end

log = logging.getLogger(__name__)

# How many overdue connections one step takes; a sweep goes on until a step finds fewer.
BATCH = 500
# Connections that one sweep looks at whether they have a deadline.
CHECKED_AT_ONCE = 2000


def sweep(now: float, pace: Pace | None = None) -> int:
    """End what is overdue at ``now``, until the turn of ``pace`` is over; how many it were."""
    pace = pace or Pace()
    clock_steps.follow(now)
    if liveness.lost_memory():
        refill(now)
    add_missing_deadlines(now)
    # These first: who is silent may be thousands, when a whole network has gone.
    ended = sweep_pending(now, pace) + sweep_sessions(now, pace)
    while (step := sweep_silent(now, pace)) is not None:
        ended += step
        if pace.over:
            break
    return ended


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


def sweep_silent(now: float, pace: Pace | None = None) -> int | None:
    """One batch of connections whose last ping is too long ago; None when there are none left to end."""
    pace = pace or Pace()
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
            pace.breathe()
            if ended and pace.over:
                return ended
    # Nothing of a whole batch could be ended: stop here rather than try the same rows for ever.
    return ended if ended or len(live) < len(due) else None


def sweep_sessions(now: float, pace: Pace | None = None) -> int:
    """Connections whose session time is over."""
    pace, ended = pace or Pace(), 0
    over = Connection.objects.select_related("server").filter(state=State.OPEN, session_ends__lte=moment(now))
    for row in over[:BATCH]:
        ended += end([row], EndReason.SESSION, now, due=row.session_ends.timestamp() if row.session_ends else None)
        pace.breathe()
        if ended and pace.over:
            break
    return ended


def sweep_pending(now: float, pace: Pace | None = None) -> int:
    """Connections whose request died before a host confirmed them (the web was killed)."""
    lost = Connection.objects.select_related("server").filter(
        state=State.PENDING, created__lte=moment(now - settings.PENDING_TIMEOUT)
    )
    return end(lost[:BATCH], EndReason.UNCONFIRMED, now, pace=pace)


def enforce(now: float, pace: Pace | None = None) -> int:
    """End connections that would no longer be allowed, or that the settings no longer fit, until the turn of ``pace``
    is over; how many it were. Cheap enough to run after every change of an account, and on a slow beat for whatever
    changed past the models."""
    live = Connection.objects.exclude(state=State.ENDED)
    return (
        _end_of(live.filter(_not_running()), EndReason.STOPPED, now, pace)
        + _end_of(live.exclude(access.permitted()), EndReason.NOT_PERMITTED, now, pace)
        + _end_of(live.filter(_with_a_revoked_key()), EndReason.NOT_PERMITTED, now, pace)
        + _end_of(live.filter(_of_revoked_device()), EndReason.DEVICE_REVOKED, now, pace)
        + _end_of(_moved(), EndReason.MOVED, now, pace)
    )


def _end_of(rows: QuerySet[Connection] | Sequence[int], reason: EndReason, now: float, pace: Pace | None) -> int:
    """``rows`` may be thousands, of which a turn ends some: only those are loaded whole, just before they end."""
    keys = list(rows.order_by("pk").values_list("pk", flat=True)) if isinstance(rows, QuerySet) else rows
    pieces = (keys[start : start + BATCH] for start in range(0, len(keys), BATCH))
    whole = (row for some in pieces for row in Connection.objects.select_related("server").filter(pk__in=some))
    return end(whole, reason, now, pace=pace)


def _not_running() -> Combinable | Q:
    attached = ServerHost.objects.filter(server=OuterRef("server"), host=OuterRef("host"))
    return Q(server__started=False) | Q(server__wireguard=False) | Q(host__enabled=False) | ~Exists(attached)


def _of_revoked_device() -> Combinable:
    """Whoever revoked it may have died before its connections ended (``devices.revoke``)."""
    devices = Device.objects.filter(user=OuterRef("user"), device_id=OuterRef("device_id"))
    return Exists(devices.exclude(revoked=None))


def _with_a_revoked_key() -> Combinable:
    """Since they began; a device may have another key by now, that somebody has confirmed."""
    return Exists(
        DeviceKey.objects.filter(
            user=OuterRef("user"), device_id=OuterRef("device_id"), revoked__gte=OuterRef("created")
        )
    )


def _moved() -> list[int]:
    """Connections (primary keys) whose address is no longer their user's, or no longer in their server's network."""
    live = Connection.objects.exclude(state=State.ENDED)
    holds = Address.objects.filter(server=OuterRef("server"), host_part=OuterRef("host_part"), user=OuterRef("user"))
    moved = set(live.filter(~Exists(holds)).values_list("pk", flat=True))
    for server in Server.objects.filter(pk__in=live.order_by().values("server")):
        rows = live_on(Server.objects.filter(pk=server.pk)).values_list("pk", "host_part", "address", "address6")
        moved.update(pk for pk, host_part, *has in rows.iterator() if [*_addresses(server, host_part)] != has)
    return sorted(moved)


def _addresses(server: Server, host_part: int) -> tuple[str | None, str | None]:
    """What host part ``host_part`` has on the server now; nothing where its networks no longer reach that far."""
    try:
        address6 = networks.address(server.network6, host_part) if server.ipv6 else None
        return networks.address(server.wg_network, host_part), address6
    except IndexError:
        return None, None
