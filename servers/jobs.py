"""Long deletions of servers and hosts, step by step."""

from __future__ import annotations

from core import deletion

from . import services
from .models import Host, Server


def _stop(keys: list[int]) -> None:
    for server in Server.objects.filter(pk__in=keys, started=True):
        services.stop(server)


def _put_aside(keys: list[int]) -> None:
    for host in Host.objects.filter(pk__in=keys, enabled=True):
        host.enabled = False
        host.save(update_fields=["enabled"])


# Nobody is let in where a deletion goes on.
deletion.retires("servers.server", _stop)
deletion.retires("servers.host", _put_aside)
