"""The DNS names of a user's devices, on the user's page."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from core.admin.page import Page, Panel
from servers import names
from servers.access import servers_of
from servers.models import Server
from users.models import VpnUser

# A person has a handful of devices; the page shows no more names than this.
DEVICES_SHOWN = 20


class NamesMixin(Page[VpnUser]):
    def panels(self, request: HttpRequest, obj: VpnUser) -> list[Panel]:
        rows = [_row(server, obj) for server in servers_of(obj).filter(dns_mapping=True)]
        panels = super().panels(request, obj)
        return (
            [*panels, Panel("DNS names", "admin/servers/names.html", {"rows": rows}, wide=True, place=4)]
            if rows
            else panels
        )


def _row(server: Server, user: VpnUser) -> dict[str, Any]:
    own, plain = names.of_user(server, user), names.plain_of_user(server, user)
    # With one device at a time there is one name below the user's: that of whichever connects.
    seen = user.devices.order_by("-last_seen")[: DEVICES_SHOWN if server.multi_device else 1]
    devices = [names.NamedDevice(user.pk, device.device_id, device.name) for device in seen]
    found = names.of_devices(server, devices)
    return {
        "server": server,
        "own": own,
        "taken": plain if plain != own else "",
        "devices": [(device.name, found[device][0]) for device in devices],
    }
