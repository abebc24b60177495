"""Long deletions of servers and hosts, step by step."""

from __future__ import annotations

from django.contrib.admin.models import CHANGE

from core import deletion, jobs
from core.models import Job
from core.pace import Room

from . import services
from .models import Host, Server

SET_STARTED = "servers.set_started"


@jobs.kind(SET_STARTED)
def set_started(job: Job, room: Room) -> jobs.Step:
    """Start or stop (``started``) the servers of ``keys``."""
    keys, place, started = job.arguments["keys"], job.place or 0, bool(job.arguments["started"])
    some, notes = keys[place : place + room.most], list[str]()
    servers = Server.objects.in_bulk(some)
    for server in (servers[key] for key in room.each(some) if key in servers):
        try:
            services.start(server) if started else services.stop(server)
        except services.WireGuardOff:
            notes.append(f"{server} was not started: turn WireGuard on first.")
            continue
        jobs.record(job, [server], CHANGE, f"{'Started' if started else 'Stopped'} {server}.")
    end = place + room.taken
    return jobs.Step(None if end >= len(keys) else end, room.taken, notes)


def _stop(keys: list[int]) -> None:
    for server in Server.objects.filter(pk__in=keys, started=True):
        services.stop(server)


def _put_aside(keys: list[int]) -> None:
    for host in Host.objects.filter(pk__in=keys, enabled=True):
        host.enabled = False
        host.save(update_fields=["enabled"])


# Nobody is let in where a deletion goes on, nor with less than what the server asks for.
deletion.goes_last("servers.serverfactor")
deletion.retires("servers.server", _stop)
deletion.retires("servers.host", _put_aside)
