"""What a deletion ends, by whichever door it comes."""

from __future__ import annotations

from django.db.models.signals import pre_delete
from django.dispatch import receiver

from core import clock
from servers.models import Server

from .lifecycle.ending import end
from .models import EndReason, live_on


@receiver(pre_delete, sender=Server)
def end_those_on_a_deleted_server(instance: Server, **kwargs: object) -> None:
    """Its history is kept, and nothing of that is live any more."""
    live = live_on(Server.objects.filter(pk=instance.pk)).select_related("server").order_by("host_part")
    end(live, EndReason.STOPPED, clock.now())
