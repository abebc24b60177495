"""What administrators do to people, the same by every door."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction

from .models import VpnUser


def set_enabled(users: Iterable[VpnUser], enabled: bool) -> list[VpnUser]:
    """Enable or disable users; those who were not so yet. Who is disabled is disconnected after commit."""
    with transaction.atomic():
        return [
            user
            for user in users
            if VpnUser.objects.filter(pk=user.pk).exclude(enabled=enabled).update(enabled=enabled)
        ]
