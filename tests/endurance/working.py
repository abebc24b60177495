"""Whether every part of the product does its work again: a process that lives may yet be deaf."""

from __future__ import annotations

import json
from collections.abc import Iterator

from redis import RedisError

from core.redis_store import redis_client
from servers.models import Host
from users.models import VpnUser
from wgpeers.lifecycle import sweeps

from .passcodes import waits_for_a_code
from .plan import LEAVERS
from .world import World


def idle(steady: float, newcomer: VpnUser) -> Iterator[str]:
    """What has not worked since ``steady`` (by the clock that nobody sets), when ``newcomer`` was made."""
    for host in Host.objects.all():
        if host.applied_version < host.version:
            yield f"{host} has applied version {host.applied_version}, and should have {host.version}"
        if host.conditions:
            yield f"{host} says that something is wrong: {host.conditions}"
    if _last_sweep() <= steady:
        yield "no sweep has run"
    newcomer.refresh_from_db()
    if not newcomer.key_ready:
        yield "a new user gets no key"


def _last_sweep() -> float:
    try:
        text = redis_client().get(sweeps._LAST)
    except RedisError:
        return 0.0
    return float(json.loads(text)["steady"]) if text else 0.0


def left_out(world: World) -> Iterator[str]:
    """Who wants to be connected, may, and is not."""
    for name, client in world.clients.items():
        if client.wanted and not client.connected and name not in LEAVERS and not waits_for_a_code(name):
            yield f"{name} is not connected"
