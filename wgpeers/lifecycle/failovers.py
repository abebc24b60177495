"""When clients last lost a host and came back elsewhere: found in the connections that are kept, nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import OuterRef, Subquery

from core import clock
from servers.models import Host
from wgpeers.models import Connection, EndReason, State

# How far back it is looked, and among how many of the last clients that came back.
WITHIN = timedelta(days=30)
MOST = 200
# Clients that leave a host within so many seconds of each other leave it for the same reason.
APART = timedelta(seconds=60)
# How many of such groups are looked at, the last ones: people who move by themselves are groups of one.
GROUPS = 20


@dataclass(frozen=True, slots=True)
class Failover:
    """``had`` is how many clients the host had when the ``first`` of them was back elsewhere; ``last`` is when the last
    one was. ``back`` counts them by the host that they came to. ``again``: when the host first got a client after that;
    None: not yet."""

    first: datetime
    last: datetime
    had: int
    back: Mapping[str, int]
    again: datetime | None

    @property
    def moved(self) -> int:
        return sum(self.back.values())


@dataclass(frozen=True, slots=True)
class Move:
    """A device was back on the host ``to``; ``pk`` is that of its connection before."""

    pk: int
    at: datetime
    to: str


def last_of(host: Host, now: float) -> Failover | None:
    """The last time at which half of its clients, or more, came back on other hosts within a short time; less than that
    is people who move. Those that it was drained of do not count: they were sent."""
    moves = _moves(host, clock.moment(now) - WITHIN)
    for number, group in enumerate(_together(moves)):
        if number == GROUPS:
            break
        last, first = group[0], group[-1]
        had = _clients_at(host, first.at)
        if 2 * len(group) >= had:
            return Failover(first.at, last.at, had, Counter(move.to for move in group), _first_after(host, last))
    return None


def _moves(host: Host, since: datetime) -> list[Move]:
    """Devices that were on the host and were back on another one, the last one first."""
    # Whoever takes a connection's place is made in the very moment in which that ends; by primary key only what came
    # after it is looked at.
    successor = Connection.objects.filter(
        user=OuterRef("user"),
        pk__gt=OuterRef("pk"),
        created=OuterRef("ended"),
        server=OuterRef("server"),
        device_id=OuterRef("device_id"),
    ).order_by("pk")
    ended = Connection.objects.filter(host=host, state=State.ENDED, ended__gte=since, end_reason=EndReason.REPLACED)
    rows = ended.order_by("-ended").annotate(
        to=Subquery(successor.values("host")[:1]), to_name=Subquery(successor.values("host_name")[:1])
    )
    found = rows.values_list("pk", "ended", "to", "to_name")[:MOST]
    return [Move(pk, at, name) for pk, at, to, name in found if at is not None and to not in (None, host.pk)]


def _together(moves: Iterable[Move]) -> Iterator[list[Move]]:
    group: list[Move] = []
    for move in moves:
        if group and group[-1].at - move.at > APART:
            yield group
            group = []
        group.append(move)
    if group:
        yield group


def _clients_at(host: Host, moment: datetime) -> int:
    """How many it had right before."""
    there = Connection.objects.filter(host=host, created__lt=moment, opened__isnull=False).order_by()
    live, ended = there.exclude(state=State.ENDED), there.filter(state=State.ENDED, ended__gte=moment)
    return live.count() + ended.count()


def _first_after(host: Host, last: Move) -> datetime | None:
    """Looked for by primary key, for there is no index by time."""
    later = Connection.objects.filter(host=host, pk__gt=last.pk, opened__gt=last.at)
    return later.order_by("pk").values_list("opened", flat=True).first()
