"""Long work on connections, step by step."""

from __future__ import annotations

from django.contrib.admin.models import CHANGE

from core import clock, deletion, jobs
from core.models import Job
from core.pace import Room
from servers.models import Server

from .lifecycle.ending import end
from .models import Connection, EndReason, State, live_on

DISCONNECT = "wgpeers.disconnect"


@jobs.kind(DISCONNECT)
def disconnect(job: Job, room: Room) -> jobs.Step:
    """Disconnect the connections of ``keys`` that are still live."""
    keys, place = job.arguments["keys"], job.place or 0
    some = keys[place : place + room.most]
    live = Connection.objects.select_related("server").exclude(state=State.ENDED).in_bulk(some)
    end((live[key] for key in room.each(some) if key in live), EndReason.ADMIN, clock.now())
    jobs.record(job, [live[key] for key in some[: room.taken] if key in live], CHANGE, "Disconnected.")
    finish = place + room.taken
    return jobs.Step(None if finish >= len(keys) else finish, room.taken)


def _end_on_server(server: Server, room: Room) -> int:
    """Whoever is connected to a server that is being deleted."""
    live = live_on(Server.objects.filter(pk=server.pk)).select_related("server")
    return end(room.each(live.order_by("host_part")[: room.most]), EndReason.STOPPED, clock.now())


deletion.ends_first("servers.server", live_on, _end_on_server)
