"""Who serves a network that is behind the clients of several users: decided from rows and facts, written only where
it changes.

A host learns of it as of everything else: the row changes, the versions of the hosts concerned are raised in the same
transaction, and each gets its full state after commit. Locks are taken in this order: users, connections and
addresses, networks behind clients (by primary key), hosts.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q

from core import task_names
from core.changes import after_commit
from core.clock import moment
from servers.changes import bump_versions
from servers.models import Address, ClientNetwork, Host, ServerHost
from wgpeers.models import Connection, State

log = logging.getLogger(__name__)


# The decision


@dataclass(frozen=True, slots=True)
class Gateway:
    """One user who may serve a network. ``connected`` and ``probe_changed`` are Unix seconds since when; ``connected``
    is None for who is not. ``probe_ok`` is what the probe last said, None if it said nothing or there is none."""

    row: int
    priority: int
    active: bool
    connected: float | None
    probe_ok: bool | None = None
    probe_changed: float | None = None

    @property
    def well(self) -> bool:
        """What was never probed counts as well: without a probe address nothing else is known of it."""
        return self.connected is not None and self.probe_ok is not False

    @property
    def well_since(self) -> float:
        if self.connected is None or not self.well:
            return math.inf
        return max(self.connected, self.probe_changed or 0.0)


def choose(gateways: Iterable[Gateway], now: float, hysteresis: float) -> int | None:
    """The row that serves the network from now on; None where nobody is connected.

    Whoever serves it keeps it: a network that moves breaks the flows through it. It moves away at once from one that
    is gone or does not answer, if there is a better one; back to a better one only when that one has been well for
    ``hysteresis`` seconds. If none of them answers, it stays: perhaps it is only the probe address that is silent.
    """
    connected = sorted((each for each in gateways if each.connected is not None), key=lambda each: each.priority)
    well = [each for each in connected if each.well]
    holder = next((each for each in connected if each.active), None)
    if holder is not None and holder.well:
        before = [each for each in well if each.priority < holder.priority and now - each.well_since >= hysteresis]
        return before[0].row if before else holder.row
    if well:
        return well[0].row
    if holder is not None:
        return holder.row
    return connected[0].row if connected else None


# Facts and rows


def serving(server: int | None, users: Collection[int]) -> dict[tuple[int, int], Connection]:
    """By (server, user), the connection to which the user's networks are routed: the one with the user's static
    address where a user may have several. ``server`` None: of every server."""
    static = Address.objects.filter(
        server=OuterRef("server"), user=OuterRef("user"), host_part=OuterRef("host_part"), dynamic=False
    )
    live = Connection.objects.exclude(state=State.ENDED).filter(user__in=users)
    if server is not None:
        live = live.filter(server=server)
    rows = live.filter(Q(server__multi_device=False) | Exists(static)).order_by("-created")
    # The oldest stays, should there be two (of a server that had several devices allowed until now).
    return {(row.server_key, row.user_id): row for row in rows if row.user_id is not None}


def _gateway(row: ClientNetwork, connection: Connection | None) -> Gateway:
    return Gateway(
        row=row.pk,
        priority=row.priority,
        active=row.active,
        connected=connection.created.timestamp() if connection else None,
        probe_ok=row.probe_ok,
        probe_changed=row.probe_changed.timestamp() if row.probe_changed else None,
    )


def _decide(rows: Sequence[ClientNetwork], connections: dict[tuple[int, int], Connection], now: float) -> int | None:
    """``rows`` are all of one network of one server."""
    gateways = [_gateway(row, connections.get((row.server_id, row.user_id))) for row in rows]
    return choose(gateways, now, settings.NETWORK_HYSTERESIS)


def _by_network(rows: Iterable[ClientNetwork]) -> dict[tuple[int, str], list[ClientNetwork]]:
    found: defaultdict[tuple[int, str], list[ClientNetwork]] = defaultdict(list)
    for row in rows:
        found[row.server_id, row.network].append(row)
    return dict(found)


def _settle(server: int, rows: Sequence[ClientNetwork], now: float) -> dict[int, int]:
    """Decide each network of ``rows``, which are locked and complete, and write what changes. By user, the hosts
    (primary keys) whose peers change with it.

    Connections are read after the rows were locked: of two transactions that decide the same network, the second one
    sees what the first one knew.
    """
    connections = serving(server, {row.user_id for row in rows})
    hosts: dict[int, int] = {}
    for same in _by_network(rows).values():
        chosen = _decide(same, connections, now)
        moved = [row for row in same if row.active != (row.pk == chosen)]
        # Given up before it is taken: only one row of a network may be active.
        for row in sorted(moved, key=lambda row: not row.active):
            ClientNetwork.objects.filter(pk=row.pk, active=row.active).update(active=not row.active)
            connection = connections.get((server, row.user_id))
            if connection is not None and connection.host_id is not None:
                hosts[row.user_id] = connection.host_id
        if moved:
            user = next((f"user {row.user_id}" for row in same if row.pk == chosen), "nobody")
            log.info("%s of server %d: %s serves it now", same[0].network, server, user)
    return hosts


# When something happens


def elect_for_user(server: int, user: int | None, now: float) -> set[int]:
    """Decide the networks of a user whose connection was made or ended in the caller's transaction, by which their own
    host is told. Where one passed from a user to another, all hosts of the server (primary keys), for each sends it
    elsewhere now: ``bump_versions`` and converge are the caller's part."""
    mine = ClientNetwork.objects.filter(server=server, user=user).values("network")
    rows = ClientNetwork.objects.select_for_update().filter(server=server, network__in=mine).order_by("pk")
    if not (locked := list(rows)):
        return set()
    passed = any(whose != user for whose in _settle(server, locked, now))
    return _all_hosts(server) if passed else set()


def _all_hosts(server: int) -> set[int]:
    return set(ServerHost.objects.filter(server=server).values_list("host", flat=True))


def elect_network(server: int, network: str, now: float) -> None:
    """Decide one network, and tell the hosts concerned."""
    with transaction.atomic():
        rows = ClientNetwork.objects.select_for_update().filter(server=server, network=network).order_by("pk")
        hosts = _all_hosts(server) if _settle(server, list(rows), now) else set[int]()
        bump_versions(hosts)
        for host in sorted(hosts):
            after_commit(task_names.CONVERGE, host)


def elect_all(now: float) -> None:
    """What time, a crash or an administrator's edit has changed. Two reads where there is nothing to change."""
    rows = list(ClientNetwork.objects.order_by("pk"))
    if not rows:
        return
    connections = serving(None, {row.user_id for row in rows})
    for (server, network), same in _by_network(rows).items():
        chosen = _decide(same, connections, now)
        if all(row.active == (row.pk == chosen) for row in same):
            continue
        try:
            elect_network(server, network, now)
        except Exception:
            log.exception("could not decide who serves %s of server %d; the next sweep tries again", network, server)


def probed(host: Host, connection: str, network: str, ok: bool, now: float) -> None:
    """Take what ``host`` says of a probe address. Believed only of a connection that it has now, for a network of
    that connection's user."""
    mine = Connection.objects.filter(host=host, public_id=connection).exclude(state=State.ENDED).first()
    if mine is None or mine.user_id is None:
        return
    rows = ClientNetwork.objects.filter(server=mine.server_id, user=mine.user_id, network=network)
    # By itself, before the network's rows are locked in their order. Said again, it changes nothing, nor since when.
    changed = rows.exclude(probe_address=None).exclude(probe_ok=ok).update(probe_ok=ok, probe_changed=moment(now))
    if changed:
        elect_network(mine.server_key, network, now)
