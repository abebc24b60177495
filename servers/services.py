"""What administrators do to servers, the same by every door."""

from __future__ import annotations

from .models import FactorMode, Host, Server, ServerFactor

# What a new server asks for: whoever was given a PIN would be surprised if it were not asked.
FIRST_FACTORS = {"pin": FactorMode.OPTIONAL}


class WireGuardOff(Exception):
    """The server has no protocol that clients could connect by."""


def ask_first_factors(server: Server) -> None:
    """For a server that no form was filled in for."""
    for kind, mode in FIRST_FACTORS.items():
        row = ServerFactor(server=server, kind=kind, mode=mode)
        row.full_clean()
        row.save()


def start(server: Server) -> None:
    """Raise ``WireGuardOff`` where nobody could connect to it anyway, ``ValidationError`` where its tunnel would take
    the place of a network that a host of its has itself."""
    if not server.wireguard:
        raise WireGuardOff
    server.started = True
    server.save(update_fields=["started"])


def stop(server: Server) -> None:
    """Its hosts take its tunnels down, and whoever is connected no longer is."""
    server.started = False
    server.save(update_fields=["started"])


def drain(host: Host) -> None:
    """It gets no new clients, and those it has move to others."""
    _set_draining(host, True)


def take_clients(host: Host) -> None:
    """As before it was drained."""
    _set_draining(host, False)


def _set_draining(host: Host, draining: bool) -> None:
    host.draining = draining
    host.save(update_fields=["draining"])
