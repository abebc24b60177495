"""Registering, confirming and revoking the keys of devices, by whatever door."""

from __future__ import annotations

import secrets

from django.db import transaction

from core import clock, task_names
from core.changes import after_commit
from core.locking import lock
from users.models import DeviceKey, VpnUser

KIND = "device"
# Of one user, that nobody has confirmed yet: the oldest goes for a new one.
WAITING = 5
# Without those that are read as another one.
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"


def new_reg_key() -> str:
    """As ``A2B3-C4D5``: 40 bits, to be compared by people. It opens nothing."""
    text = "".join(secrets.choice(_LETTERS) for _ in range(8))
    return f"{text[:4]}-{text[4:]}"


def key_of(user: VpnUser, fingerprint: str) -> DeviceKey | None:
    return DeviceKey.objects.filter(user_id=user.pk, fingerprint=fingerprint).first()


def register(user: VpnUser, fingerprint: str, device_id: str, name: str, platform: str, now: float) -> DeviceKey:
    """The key, which waits to be confirmed; the same one again if the device asks again."""
    with transaction.atomic():
        lock(user)
        if known := key_of(user, fingerprint):
            return known
        waiting = DeviceKey.objects.filter(user_id=user.pk, confirmed=None, revoked=None)
        kept = list(waiting.values_list("pk", flat=True)[: WAITING - 1])
        waiting.exclude(pk__in=kept).delete()
        return DeviceKey.objects.create(
            user_id=user.pk,
            fingerprint=fingerprint,
            device_id=device_id,
            name=name,
            platform=platform,
            reg_key=new_reg_key(),
            created=clock.moment(now),
        )


def confirm(key: DeviceKey, now: float) -> bool:
    """False if there is nothing to confirm any more."""
    mine = DeviceKey.objects.filter(pk=key.pk, confirmed=None, revoked=None)
    return mine.update(confirmed=clock.moment(now)) == 1


def rename(key: DeviceKey, name: str) -> None:
    DeviceKey.objects.filter(pk=key.pk).update(name=name)


def revoke(key: DeviceKey, now: float) -> None:
    """For good: the device needs another key, and somebody who confirms it. What it has open ends at once."""
    with transaction.atomic():
        if DeviceKey.objects.filter(pk=key.pk, revoked=None).update(revoked=clock.moment(now)):
            after_commit(task_names.ENFORCE)


def registered(user: VpnUser) -> int:
    return DeviceKey.objects.filter(user_id=user.pk, confirmed__isnull=False, revoked=None).count()
