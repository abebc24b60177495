"""Devices that users were seen to have. A client names its device itself, so nothing but this bounds how many."""

from __future__ import annotations

from django.db.models import Count

from core.pace import Pace
from core.pruning import delete_old
from users.models import Device

KEPT = 50  # of each user, those seen last


def prune(pace: Pace) -> None:
    """Forget the devices beyond ``KEPT``, and nothing of their connections, until the turn of ``pace`` is over."""
    crowded = Device.objects.values("user").annotate(devices=Count("pk")).filter(devices__gt=KEPT)
    for user in crowded.values_list("user", flat=True):
        kept = Device.objects.filter(user=user).order_by("-last_seen").values_list("pk", flat=True)[:KEPT]
        delete_old(Device.objects.filter(user=user).exclude(pk__in=list(kept)), pace)
