"""Routes of servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Route:
    """A network that clients reach through this host.

    ``nat``: clients appear there as the host itself, but only where packets leave by ``nat_interface`` if that is not
    empty. Without ``nat`` they keep their address, and the network may open connections to them. ``netmap`` is the
    real network, as long as ``network``, that stands behind it one to one in both directions; empty: ``network`` is
    the real one.
    """

    network: str
    nat: bool
    nat_interface: str = ""
    netmap: str = ""


def route_from_json(data: Mapping[str, Any]) -> Route:
    return Route(str(data["network"]), bool(data["nat"]), str(data["nat_interface"]), str(data["netmap"]))
