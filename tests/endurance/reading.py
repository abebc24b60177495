"""Reading the product: rows from its database, peers from its interfaces, deadlines from its Redis."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models import Exists, OuterRef
from redis import RedisError

from core import clock
from core.redis_store import RedisUnavailable, redis_client
from servers import access
from servers.hostnet.state import OUR_INTERFACE
from servers.models import ServerHost
from tests.lab import Machine
from users.models import Device
from wgpeers.lifecycle import liveness
from wgpeers.models import Connection, SpentKey

from .invariants import Reading, Row


def rows() -> list[Row]:
    """All connections there ever were, in one statement: as they were at one moment."""
    runs = Exists(ServerHost.objects.filter(server=OuterRef("server"), host=OuterRef("host"), server__started=True))
    found = Connection.objects.select_related("server").order_by("pk")
    device = Device.objects.filter(user=OuterRef("user"), device_id=OuterRef("device_id"))
    in_use = ~Exists(device.exclude(revoked=None))
    return [_row(each) for each in found.annotate(may=access.permitted(), runs=runs, in_use=in_use)]


def _row(each: Connection) -> Row:
    assert each.server is not None, "these runs delete no server"
    return Row(
        name=each.public_id,
        user=each.user_name.partition(" ")[0],
        server=each.server.name,
        interface=each.server.interface,
        key=each.wg_public_key,
        addresses=tuple(address for address in (each.address, each.address6) if address),
        state=each.state,
        timeout=each.server.ping_timeout,
        created=each.created.timestamp(),
        opened=_seconds(each.opened),
        ended=_seconds(each.ended),
        due=_seconds(each.due),
        reason=each.end_reason,
        permitted=all(getattr(each, name, True) for name in ("may", "runs", "in_use")),
    )


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment is not None else None


def spent() -> frozenset[bytes]:
    return frozenset(bytes(each) for each in SpentKey.objects.values_list("digest", flat=True))


def peers(machine: Machine) -> dict[tuple[str, str], frozenset[str]]:
    """Allowed IPs by interface and key, of every interface there that clients' tunnels end on."""
    found = {}
    for line in machine.run("wg", "show", "all", "dump", check=False).stdout.splitlines():
        words = line.split("\t")
        if len(words) == 9 and OUR_INTERFACE.fullmatch(words[0]):  # a peer; an interface itself has five
            found[words[0], words[1]] = frozenset(words[4].split(",")) - {"(none)"}
    return found


def deadlines() -> dict[str, float]:
    scores: Any = redis_client().zrange(liveness.DEADLINES, 0, -1, withscores=True)
    return {str(name): float(score) for name, score in scores if name != liveness.SENTINEL}


def at_any_moment(machine: Machine) -> Reading:
    """What can be read whatever is down."""
    now, found = clock.now(), rows()
    return Reading(now, found, peers(machine), spent=spent())


def whole(machine: Machine, held: frozenset[str]) -> Reading | None:
    """All of it; None while Redis does not answer."""
    try:
        known = deadlines()
    except (RedisError, RedisUnavailable):
        return None
    return Reading(clock.now(), rows(), peers(machine), known, spent(), held)
