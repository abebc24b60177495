"""What administrators do to servers, the same by every door."""

from __future__ import annotations

from .models import Server


class WireGuardOff(Exception):
    """The server has no protocol that clients could connect by."""


def start(server: Server) -> None:
    """Raise ``WireGuardOff`` where nobody could connect to it anyway."""
    if not server.wireguard:
        raise WireGuardOff
    server.started = True
    server.save(update_fields=["started"])


def stop(server: Server) -> None:
    """Its hosts take its tunnels down, and whoever is connected no longer is."""
    server.started = False
    server.save(update_fields=["started"])
