"""A host with real WireGuard interfaces and our real firewall, and nothing else of the product: no worker, no Redis."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

from servers.hostnet.firewall.table import Firewall
from servers.hostnet.netlink.links import Links
from servers.hostnet.state import Forward, Interface, Peer
from tests.lab import KeyPair, Lab, Machine, Tunnel
from tests.servers.hostnet.fakes import state_of

WEB_PORT = 9790
MTU = 1420


class FirewalledHost:
    """The machine ``host`` in ``lab``; ``interfaces`` are its servers by name, without peers."""

    def __init__(self, lab: Lab, *interfaces: Interface) -> None:
        self.lab = lab
        self.host = lab.add_host()
        self.firewall = Firewall()
        self.interfaces = {interface.name: interface for interface in interfaces}
        self.peers: dict[str, tuple[str, Peer]] = {}
        self._keys = {interface.name: KeyPair.make() for interface in interfaces}
        self._version = 0
        self.host.call(lambda: Links().forward(ipv6=True))
        self.apply()
        for interface in interfaces:
            tunnel = Tunnel(self.host, self._keys[interface.name], interface.addresses, interface.name, MTU)
            self.host.run("wg", "set", tunnel.name, "listen-port", str(interface.port))

    def apply(self) -> None:
        """A full state: the firewall gets all interfaces with their peers."""
        wanted = [
            dataclasses.replace(i, peers=tuple(peer for name, peer in self.peers.values() if name == i.name))
            for i in self.interfaces.values()
        ]
        self.host.call(lambda: self.firewall.apply(state_of(*wanted, web_port=WEB_PORT)))

    def alter(self, name: str, **settings: object) -> None:
        """Give server ``name`` other settings (routes and so on)."""
        self.interfaces[name] = dataclasses.replace(self.interfaces[name], **settings)  # type: ignore[arg-type]
        self.apply()

    @contextlib.contextmanager
    def altered(self, name: str, **settings: object) -> Iterator[None]:
        before = self.interfaces[name]
        self.alter(name, **settings)
        try:
            yield
        finally:
            self.interfaces[name] = before
            self.apply()

    def drifted(self) -> bool:
        return bool(self.host.call(self.firewall.drift))

    def connect(
        self,
        client: Machine,
        name: str,
        connection: str,
        addresses: Sequence[str],
        routes: Sequence[str],
        *,
        networks: Sequence[str] = (),
        forwards: Sequence[Forward] = (),
    ) -> None:
        """A client with ``addresses``, which sends ``routes`` into its tunnel. Its handshake is over on return."""
        keys = KeyPair.make()
        own = tuple(f"{address}/{128 if ':' in address else 32}" for address in addresses)
        self._version += 1
        peer = Peer(connection, self._version, keys.public, own, tuple(networks), forwards=tuple(forwards))
        self.host.run("wg", "set", name, "peer", keys.public, "allowed-ips", ",".join(peer.routed))
        for network in networks:
            self.host.ip("route", "replace", network, "dev", name)
        self.change(name, new=[peer])
        tunnel = Tunnel(client, keys, [f"{a}/{64 if ':' in a else 24}" for a in addresses], mtu=MTU)
        endpoint = f"{self.host.address}:{self.interfaces[name].port}"
        tunnel.connect(self._keys[name].public, endpoint, routes)
        assert client.pings(self.interfaces[name].addresses[0].partition("/")[0])

    def forward(self, connection: str, *forwards: Forward) -> None:
        """Give a connection other forwards."""
        name, old = self.peers[connection]
        self._version += 1
        self.change(name, gone=[old], new=[dataclasses.replace(old, forwards=forwards, version=self._version)])

    def change(self, name: str, *, gone: Sequence[Peer] = (), new: Sequence[Peer] = ()) -> None:
        for peer in gone:
            del self.peers[peer.connection]
        for peer in new:
            self.peers[peer.connection] = (name, peer)
        self.host.call(lambda: self.firewall.change(self.interfaces[name], gone, new))

    def disconnect(self, connection: str) -> None:
        """The peer goes from the firewall alone: WireGuard still has it, and conntrack what it knows of it."""
        name, peer = self.peers[connection]
        self.change(name, gone=[peer])
