"""How this machine is connected to the world outside our tunnels: its addresses and its default routes."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Any

from pyroute2 import IPRoute

from wgpeer.tunnel.link import INTERFACE_PREFIX, SCOPE_LINK
from wgpeer.tunnel.routing import FAMILIES, MAIN_TABLE

Fact = tuple[str, int, str, int]


def _observe() -> frozenset[Fact]:
    """Every address (with its link) that reaches farther than that link, and every default route of the main table
    (link, gateway, metric)."""
    own = {index for index, name in socket.if_nameindex() if name.startswith(INTERFACE_PREFIX)}
    facts = set[Fact]()
    with IPRoute() as route:
        for message in route.get_addr():
            if message["index"] not in own and message["scope"] < SCOPE_LINK:
                facts.add(("address", message["index"], str(message.get_attr("IFA_ADDRESS")), message["prefixlen"]))
        for family in FAMILIES:
            for message in route.get_routes(family=family):
                if _is_default(message) and (index := message.get_attr("RTA_OIF") or 0) not in own:
                    metric = message.get_attr("RTA_PRIORITY") or 0
                    facts.add(("default route", index, str(message.get_attr("RTA_GATEWAY")), metric))
    return frozenset(facts)


def _is_default(message: Any) -> bool:
    return not message["dst_len"] and (message.get_attr("RTA_TABLE") or message["table"]) == MAIN_TABLE


@dataclass(slots=True)
class Uplink:
    """Tells changes of it, from how it was when this was made."""

    _known: frozenset[Fact] = field(default_factory=_observe)

    def has_changed(self) -> bool:
        """Whether an address or a default route came or went since the last call. Raises ``NetlinkError`` or
        ``OSError``."""
        before, self._known = self._known, _observe()
        return before != self._known
