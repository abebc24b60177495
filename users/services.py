"""What administrators do to people, the same by every door."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction

from core.changes import after_commit
from core.task_names import ENFORCE

from .models import VpnUser


def set_enabled(users: Iterable[VpnUser], enabled: bool) -> list[VpnUser]:
    """Enable or disable users; those who were not so yet. Who is disabled is disconnected after commit."""
    with transaction.atomic():
        changed = [
            user
            for user in users
            if VpnUser.objects.filter(pk=user.pk).exclude(enabled=enabled).update(enabled=enabled)
        ]
        if changed and not enabled:
            after_commit(ENFORCE)
    return changed
