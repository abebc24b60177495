"""Long work on connections, step by step."""

from __future__ import annotations

from django.contrib.admin.models import CHANGE

from core import clock, deletion, jobs
from core.models import Job
from servers.models import Server

from .lifecycle.ending import end
from .models import Connection, EndReason, State, live_on

DISCONNECT = "wgpeers.disconnect"


@jobs.kind(DISCONNECT)
def disconnect(job: Job, most: int) -> jobs.Step:
    """Disconnect the connections of ``keys`` that are still live."""
    keys, place = job.arguments["keys"], job.place or 0
    some = keys[place : place + most]
    live = list(Connection.objects.select_related("server").filter(pk__in=some).exclude(state=State.ENDED))
    end(live, EndReason.ADMIN, clock.now())
    jobs.record(job, live, CHANGE, "Disconnected.")
    finish = place + len(some)
    return jobs.Step(None if finish >= len(keys) else finish, len(some))


def _end_on_server(server: Server, most: int) -> int:
    """Whoever is connected to a server that is being deleted."""
    live = live_on(Server.objects.filter(pk=server.pk)).select_related("server")
    return end(live.order_by("host_part")[:most], EndReason.STOPPED, clock.now())


deletion.ends_first("servers.server", live_on, _end_on_server)
