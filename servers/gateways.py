"""Which requests have come through a tunnel: those to a server's gateway, from an address of its tunnel network.

The host's firewall lets no others reach gateway web. This holds also while somebody has removed it. A host answers for
its gateways' addresses on every link, so the gateway's address alone proves nothing. The client's does: answers to it
are routed into the tunnel, so nobody outside can open a TCP connection in its name.
"""

from __future__ import annotations

import ipaddress
import logging
import threading
from collections.abc import Mapping

from django.db import DatabaseError

from core import clock

from .models import Server
from .networks import GATEWAY_HOST_PART, Network, parse

log = logging.getLogger(__name__)

READ_AGAIN = 60.0  # seconds that a reading of the database is good for
# Seconds. Whoever fits no known server may come through a new one's tunnel, or be a stranger, who is to cost nothing.
LOOK_AGAIN = 1.0


class Gateways:
    """By gateway address, the tunnel networks of servers that are started, as the database last said."""

    def __init__(self) -> None:
        self._networks: Mapping[str, Network] = {}
        self._read = float("-inf")
        self._reading = threading.Lock()

    def admits(self, source: str, local: str) -> bool:
        """Whether a connection from ``source`` to the address ``local`` has come through a tunnel, or from this machine
        to itself (by loopback addresses, which the kernel takes from no link)."""
        try:
            client, here = ipaddress.ip_address(source), ipaddress.ip_address(local)
        except ValueError:
            return False
        if client.is_loopback and here.is_loopback:
            return True
        fits = self._fit(client, here)
        if fits and clock.steady() - self._read < READ_AGAIN:
            return True
        # Who fits need not wait for what another thread is just reading.
        if self._reading.acquire(blocking=not fits):
            try:
                if clock.steady() - self._read >= (READ_AGAIN if fits else LOOK_AGAIN):
                    self._read_again()
            finally:
                self._reading.release()
        return self._fit(client, here)

    def _fit(self, client: ipaddress.IPv4Address | ipaddress.IPv6Address, here: object) -> bool:
        network = self._networks.get(str(here))
        return network is not None and client in network

    def _read_again(self) -> None:
        """Without the database what it said before stays good, so that tunnels keep running."""
        try:
            self._networks = dict(_started())
        except DatabaseError as error:
            log.error("the servers' networks cannot be read: %s", type(error).__name__)
        self._read = clock.steady()


def _started() -> list[tuple[str, Network]]:
    found = Server.objects.filter(started=True).values_list("wg_network", "ipv6", "network6")
    texts = [text for wg_network, ipv6, network6 in found for text in (wg_network, network6 if ipv6 else "") if text]
    return [(str(network[GATEWAY_HOST_PART]), network) for network in map(parse, texts)]
