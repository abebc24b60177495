"""Links between servers, as a host knows them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .openvpn import OpenVpn, openvpn_from_json
from .routes import Route, route_from_json


@dataclass(frozen=True, slots=True)
class Link:
    """Another server, whose clients reach those of this one, and are reached by them.

    ``server`` is its public id, and ``interface`` its interface's name on hosts that carry it, which this one need not
    be. ``networks`` are its tunnel networks; ``behind`` all networks that a client of it could serve. ``clients``:
    clients reach each other; else only where one of both is in a network behind a client. ``masquerade``: what comes
    from there appears to clients here with the address of this server's gateway. ``zone`` is the one of its clients'
    names where these are known here, and empty where they are not.

    ``routed`` are its routes where this host does not carry it. What they lead to is reached by the host ``via``
    (public id), or not at all where that is empty. ``offered`` are this server's own, which clients of the other reach
    by this host. Which real networks stand behind them concerns the machine that they are reached by alone.

    ``openvpn`` is the tunnel that carries it, where its end is on this host. ``there``: it is on the host ``via``, by
    which then all that the link leads to is reached, clients as well. Neither: WireGuard carries it, over this host or
    the mesh.

    ``outside``: the other end is in another installation. ``server`` is then the id of the link, ``networks`` are all
    that is reached there, and of this server's own networks the other end reaches ``shown`` and no others.
    """

    server: str
    interface: str
    networks: tuple[str, ...]
    behind: tuple[str, ...] = ()
    routed: tuple[Route, ...] = ()
    via: str = ""
    offered: tuple[Route, ...] = ()
    clients: bool = True
    masquerade: bool = False
    zone: str = ""
    openvpn: OpenVpn | None = None
    outside: bool = False
    shown: tuple[str, ...] = ()
    there: bool = False

    @property
    def reached(self) -> tuple[Route, ...]:
        """Those of its routes that clients here reach by way of another machine."""
        if not (self.via or self.openvpn):
            return ()
        return tuple(dataclasses.replace(route, netmap="") for route in self.routed)


def link_from_json(data: Mapping[str, Any]) -> Link:
    """Raise ``KeyError``, ``TypeError`` or ``ValueError`` where ``data`` is none."""
    return Link(
        server=str(data["server"]),
        interface=str(data["interface"]),
        networks=tuple(str(network) for network in data["networks"]),
        behind=tuple(str(network) for network in data["behind"]),
        routed=tuple(route_from_json(route) for route in data["routed"]),
        via=str(data["via"]),
        offered=tuple(route_from_json(route) for route in data["offered"]),
        clients=bool(data["clients"]),
        masquerade=bool(data["masquerade"]),
        zone=str(data["zone"]),
        openvpn=openvpn_from_json(data["openvpn"]) if data.get("openvpn") is not None else None,
        outside=bool(data.get("outside", False)),
        shown=tuple(str(network) for network in data.get("shown", ())),
        there=bool(data.get("there", False)),
    )
