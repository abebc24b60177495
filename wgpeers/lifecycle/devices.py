"""Devices that users were seen to have. A client names its device itself, so nothing but this bounds how many."""

from __future__ import annotations

from django.db.models import Count

from users.models import Device

KEPT = 50  # of each user, those seen last


def prune() -> None:
    """Forget the devices beyond ``KEPT``, and nothing of their connections."""
    crowded = Device.objects.values("user").annotate(devices=Count("pk")).filter(devices__gt=KEPT)
    for user in crowded.values_list("user", flat=True):
        kept = Device.objects.filter(user=user).order_by("-last_seen").values_list("pk", flat=True)[:KEPT]
        Device.objects.filter(user=user).exclude(pk__in=list(kept)).delete()
