"""Emptying a host: its clients are sent to others, a group at a time.

Each is ended as an administrator would, and told so by its next ping; it then connects anew, to another host, with the
same address. Its device passes with what it passed before, as far as the server's reconnect grace goes.
"""

from __future__ import annotations

import logging

from core.redis_store import RedisUnavailable
from servers import heartbeats
from servers.models import Host, ServerHost
from wgpeers.models import Connection, EndReason, State

from .ending import end

log = logging.getLogger(__name__)

# Of one step, and a step comes every ten seconds: so many clients, or this part of all that are left.
LEAST, PART = 10, 20


def step(now: float) -> int:
    """Send one group of each draining host's clients away; how many they were."""
    hosts = list(Host.objects.filter(draining=True, enabled=True))
    if not hosts:
        return 0
    try:
        # Who is on a host that is not heard cannot be told, and stays as on any silent host.
        heard = heartbeats.fresh(hosts)
    except RedisUnavailable:
        return 0
    return sum(end(_group(host), EndReason.DRAINED, now) for host in hosts if host.pk in heard)


def _group(host: Host) -> list[Connection]:
    """The oldest ones. Of servers that no other host takes clients for nobody goes: they would be without any."""
    movable = [each.server_id for each in host.attachments.all() if has_other_host(each)]
    rows = Connection.objects.select_related("server").filter(host=host, server__in=movable, state=State.OPEN)
    live = rows.exclude(state=State.ENDED)
    return list(live.order_by("pk")[: max(LEAST, live.count() // PART)])


def has_other_host(attachment: ServerHost) -> bool:
    """Whether another host takes clients of the server now. Raise ``RedisUnavailable``."""
    able = ServerHost.objects.filter(server=attachment.server_id, host__enabled=True, host__draining=False)
    others = able.exclude(host=attachment.host_id).exclude(public_key="").select_related("host")
    return bool(heartbeats.fresh([each.host for each in others]))
