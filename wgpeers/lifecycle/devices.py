"""Devices that users were seen to have. A client names its device itself, so nothing but this bounds how many."""

from __future__ import annotations

from django.db.models import Count

from core.clock import moment
from core.pace import Pace
from core.pruning import delete_old
from users.factors import remembered
from users.models import Device
from wgpeers.models import Connection, EndReason, State

from .ending import end

KEPT = 50  # of each user, those seen last; one that was revoked is kept for ever, else it could come back


def revoke(device: Device, now: float) -> bool:
    """Keep the device away until an administrator lets it in again: its connections end, and what was remembered of
    passes is void. False where it was revoked before.

    In this order: a connect that is under way sees the mark when it opens, or has opened and is found here.
    """
    new = Device.objects.filter(pk=device.pk, revoked=None).update(revoked=moment(now))
    live = Connection.objects.exclude(state=State.ENDED).filter(user=device.user_id, device_id=device.device_id)
    end(list(live.select_related("server")), EndReason.DEVICE_REVOKED, now)
    remembered.forget_device(device.user_id, device.device_id)
    return bool(new)


def prune(pace: Pace) -> None:
    """Forget the devices beyond ``KEPT``, and nothing of their connections, until the turn of ``pace`` is over."""
    seen = Device.objects.filter(revoked=None)
    crowded = seen.values("user").annotate(devices=Count("pk")).filter(devices__gt=KEPT)
    for user in crowded.values_list("user", flat=True):
        kept = seen.filter(user=user).order_by("-last_seen").values_list("pk", flat=True)[:KEPT]
        delete_old(seen.filter(user=user).exclude(pk__in=list(kept)), pace)
