"""After the database was restored from a backup: the hosts have seen later versions than it knows.

A host takes nothing older than what it has, so it would take no change until its version had caught up.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from core.redis_store import RedisUnavailable
from servers import heartbeats
from servers.models import Host

log = logging.getLogger(__name__)

# A host is not trusted to write well: it could use up what the column holds.
HIGHEST = 2**62


def catch_up(hosts: Sequence[Host]) -> list[Host]:
    """Raise the version of each host that says in its heartbeat that it has seen a later one; those hosts, to be sent
    their whole state.

    No message is sent before the version that it carries is committed, so a host is never ahead otherwise.
    """
    try:
        beats = heartbeats.read(hosts)
    except RedisUnavailable:
        return []
    raised = []
    for host in hosts:
        seen = beats.get(host.pk, {}).get("version", 0)
        if type(seen) is not int or not host.version < seen < HIGHEST:
            continue
        if Host.objects.filter(pk=host.pk, version__lt=seen).update(version=seen + 1):
            log.warning("host %s has seen version %d and the database only %d", host, seen, host.version)
            raised.append(host)
    return raised
