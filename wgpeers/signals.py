"""What a deletion ends, by whichever door it comes."""

from __future__ import annotations

from django.db.models.signals import pre_delete
from django.dispatch import receiver

from core import clock
from servers.models import Server

from .lifecycle.ending import end
from .models import Connection, EndReason, State


@receiver(pre_delete, sender=Server)
def end_those_on_a_deleted_server(instance: Server, **kwargs: object) -> None:
    """Its history is kept, and nothing of that is live any more."""
    live = Connection.objects.select_related("server").filter(server=instance).exclude(state=State.ENDED)
    end(live, EndReason.STOPPED, clock.now())
