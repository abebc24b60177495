"""Keys of devices, which an administrator confirms."""

from __future__ import annotations

from typing import Any

from tests.protocol_client import NOW
from users.factors.device import enrolment
from users.models import DeviceKey, VpnUser

from .bench import Bench


class DeviceBench(Bench):
    kind = "device"

    def signed(self, user: VpnUser | None = None, key: str = "a" * 64, **attempt: Any) -> str:
        return self.code("", user, device_key=key, **attempt)

    def confirmed(self) -> DeviceKey:
        assert self.signed() == "waiting"
        row = DeviceKey.objects.get()
        assert enrolment.confirm(row, NOW)
        return row

    def right(self) -> str:
        self.confirmed()
        return self.signed()

    def wrong(self) -> str:
        self.confirmed()
        return self.signed(key="")

    def replayed(self) -> str:
        """By another device, with a copy of the key."""
        self.confirmed()
        return self.signed(device_id="another")

    def expired(self) -> str:
        enrolment.revoke(self.confirmed(), NOW)
        return self.signed()

    def others(self) -> str:
        self.confirmed()
        return self.signed(self.bob)
