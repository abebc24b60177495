"""Which requests have come through a tunnel: those to a server's gateway, from an address of its tunnel network.

The host's firewall lets no others reach gateway web. This holds also while somebody has removed it. A host answers for
its gateways' addresses on every link, so the gateway's address alone proves nothing. The client's does: answers to it
are routed into the tunnel, so nobody outside can open a TCP connection in its name.

Or through a tunnel of another host, which forwards it (``hostnet.gateway``) and says in whose name. The host's address
in the mesh is proven by the mesh, and it is believed for the servers that it carries, and no others.
"""

from __future__ import annotations

import ipaddress
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping

from django.db import DatabaseError

from core import clock

from .models import Server
from .networks import GATEWAY_HOST_PART, Network, parse

log = logging.getLogger(__name__)

READ_AGAIN = 60.0  # seconds that a reading of the database is good for
# Seconds. Whoever fits no known server may come through a new one's tunnel, or be a stranger, who is to cost nothing.
LOOK_AGAIN = 1.0


# A host's address in the mesh, and (primary key) a server that it carries.
Carried = Iterable[tuple[str, int]]


def nobody_forwards() -> Carried:
    """Where there is no mesh."""
    return ()


class Gateways:
    """By gateway address, the tunnel networks of servers that are started, as the database last said. ``carried`` reads
    which hosts forward for which servers."""

    def __init__(self, carried: Callable[[], Carried] = nobody_forwards) -> None:
        self._carried = carried
        self._networks: Mapping[str, Network] = {}
        self._forwarded: frozenset[tuple[str, str]] = frozenset()  # a host's address, a gateway's address
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
        return self._known(lambda: self._fit(client, here))

    def forwards(self, host: str, source: str, local: str) -> bool:
        """Whether ``host`` (an address in the mesh) may say that it forwards for a client ``source`` who came to its
        gateway ``local``."""
        try:
            address, client, here = (str(ipaddress.ip_address(each)) for each in (host, source, local))
        except ValueError:
            return False
        return self._known(lambda: (address, here) in self._forwarded and self._fit(ipaddress.ip_address(client), here))

    def _known(self, fit: Callable[[], bool]) -> bool:
        """Whether it fits by what is known, which is read anew where that may help."""
        fits = fit()
        if fits and clock.steady() - self._read < READ_AGAIN:
            return True
        # Who fits need not wait for what another thread is just reading.
        if self._reading.acquire(blocking=not fits):
            try:
                if clock.steady() - self._read >= (READ_AGAIN if fits else LOOK_AGAIN):
                    self._read_again()
            finally:
                self._reading.release()
        return fit()

    def _fit(self, client: ipaddress.IPv4Address | ipaddress.IPv6Address, here: object) -> bool:
        network = self._networks.get(str(here))
        return network is not None and client in network

    def _read_again(self) -> None:
        """Without the database what it said before stays good, so that tunnels keep running."""
        try:
            started = list(_started())
            self._networks = {gateway: network for _, gateway, network in started}
            self._forwarded = frozenset(
                (host, gateway) for host, server in self._carried() for pk, gateway, _ in started if pk == server
            )
        except DatabaseError as error:
            log.error("the servers' networks cannot be read: %s", type(error).__name__)
        self._read = clock.steady()


def _started() -> Iterator[tuple[int, str, Network]]:
    """Of each server its primary key, a gateway's address and the network."""
    found = Server.objects.filter(started=True).values_list("pk", "wg_network", "ipv6", "network6")
    for pk, wg_network, ipv6, network6 in found:
        for text in (wg_network, network6 if ipv6 else ""):
            if text:
                network = parse(text)
                yield pk, str(network[GATEWAY_HOST_PART]), network
