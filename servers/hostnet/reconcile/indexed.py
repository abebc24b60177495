"""The peers of one host, found by connection, key, address and network, and what changed about them. Pure."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Collection

from servers.hostnet.state import Peer
from servers.hostnet.wireguard.base import PeerChange

from .held import Difference, Held
from .lingering import Lingering


class Indexed:
    """One peer to an address and to a key of each server. A network may be named by several: it is the newest's."""

    def __init__(self, steady: Callable[[], float]) -> None:
        self.by_connection: dict[str, Held] = {}
        self.by_key: dict[tuple[str, str], str] = {}
        self.by_ip: dict[tuple[str, str], str] = {}
        self.lingering = Lingering(steady)  # of those that are held
        self._by_network: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        # Not yet carried out: by server and key each peer that changed, as it was when last settled (None: it was not
        # there).
        self._changed: defaultdict[str, dict[str, Peer | None]] = defaultdict(dict)

    def copy(self) -> Indexed:
        """Without what is not yet carried out."""
        copy = Indexed(self.lingering.steady)
        copy.by_connection, copy.by_key, copy.by_ip = dict(self.by_connection), dict(self.by_key), dict(self.by_ip)
        copy.lingering = self.lingering.copy()
        for place, connections in self._by_network.items():
            copy._by_network[place] = set(connections)
        return copy

    def place(self, held: Held) -> None:
        server, peer = held.server, held.peer
        self._note(server, peer)
        self.by_connection[peer.connection] = held
        self.by_key[server, peer.public_key] = peer.connection
        for ip in peer.allowed_ips:
            self.by_ip[server, ip] = peer.connection
        for network in peer.networks:
            self._by_network[server, network].add(peer.connection)

    def _note(self, server: str, peer: Peer) -> None:
        """Before ``peer`` comes or goes: remember how it was, and those who may win or lose a network by it."""
        changed = self._changed[server]
        if peer.public_key not in changed:
            changed[peer.public_key] = self._routed(server, self.by_key.get((server, peer.public_key)))
        for network in peer.routed:
            for connection in self._by_network.get((server, network), ()):
                key = self.by_connection[connection].peer.public_key
                if key not in changed:
                    changed[key] = self._routed(server, connection)

    def forget(self, connection: str) -> Held | None:
        held = self.by_connection.get(connection)
        if held is None:
            return None
        server, peer = held.server, held.peer
        self._note(server, peer)
        self.lingering.forget(connection)
        del self.by_connection[connection]
        del self.by_key[server, peer.public_key]
        for ip in peer.allowed_ips:
            del self.by_ip[server, ip]
        for network in peer.networks:
            self._by_network[server, network].discard(connection)
            if not self._by_network[server, network]:
                del self._by_network[server, network]
        return held

    def with_own_networks(self, held: Held) -> Peer:
        """The peer with those of its networks that are routed to it and not to another one that names them too."""
        peer = held.peer
        if not peer.networks:
            return peer
        own = tuple(network for network in peer.networks if self._owner(held.server, network) == peer.connection)
        return peer if own == peer.networks else dataclasses.replace(peer, networks=own)

    def _owner(self, server: str, network: str) -> str:
        """Whose ``network`` is: whoever has it as its own address, else the newest of those that name it."""
        address = self.by_ip.get((server, network))
        return address or max(
            self._by_network[server, network],
            key=lambda connection: (self.by_connection[connection].peer.version, connection),
        )

    def _routed(self, server: str, connection: str | None) -> Peer | None:
        return self.with_own_networks(self.by_connection[connection]) if connection is not None else None

    def is_open(self, connection: str) -> bool:
        """Whether it is here and does not linger."""
        return connection in self.by_connection and connection not in self.lingering

    def uses(self, allowed_ip: str, servers: Collection[str]) -> bool:
        """Whether an open peer of ``servers`` has this allowed IP, be it its own address or a network behind it."""
        return any(
            self.is_open(self.by_ip.get((server, allowed_ip), "")) or (server, allowed_ip) in self._by_network
            for server in servers
        )

    def routes(self, server: str, network: str) -> bool:
        """Whether ``network`` lies behind a peer of ``server``."""
        connections = self._by_network.get((server, network), ())
        return bool(connections) and self._owner(server, network) in connections

    # What is still to be carried out

    def changed(self) -> list[str]:
        """Servers with peers that changed and were not settled since."""
        return [server for server, keys in self._changed.items() if keys]

    def changes(self, server: str) -> list[PeerChange]:
        """What WireGuard must be told about the changed peers of ``server``: additions, then removals.

        Also of those that are again as they were: it may have been told half of it, by a request that then failed.
        Whoever wins a network comes before who loses it, so that it passes from one to the other in one step.
        """
        gaining, other, remove = [], [], []
        for key, before in self._changed.get(server, {}).items():
            now = self._routed(server, self.by_key.get((server, key)))
            if now is None:
                remove.append(PeerChange(key, remove=True))
            elif before is None or not {*now.routed} <= {*before.routed}:
                gaining.append(PeerChange(key, now.routed))
            else:
                other.append(PeerChange(key, now.routed))
        return gaining + other + remove

    def difference(self, server: str) -> Difference:
        """What changed on ``server`` since it was settled."""
        gone, new = [], []
        for key, before in self._changed.get(server, {}).items():
            now = self._routed(server, self.by_key.get((server, key)))
            if now == before:
                continue
            if before is not None:
                gone.append(before)
            if now is not None:
                new.append(now)
        return Difference(tuple(gone), tuple(new))

    def lingered(self, server: str) -> list[PeerChange]:
        """Removals of those that linger no more since ``server`` was settled, and whose key nobody else has."""
        difference = self.difference(server)
        keep = {peer.public_key for peer in difference.new}
        over = [peer.public_key for peer in difference.gone if peer.lingers and peer.public_key not in keep]
        return [PeerChange(key, remove=True) for key in over]

    def mark_applied(self, server: str) -> None:
        """WireGuard now has every change of ``server``."""
        self._changed.pop(server, None)
