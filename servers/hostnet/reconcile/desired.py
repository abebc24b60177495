"""What this host should be right now, worked out from messages that may come late, twice or in any order. Pure.

The rule is that an old message never wins:

- Nothing is added before the first full state, and that one must answer this run's hello (its boot id).
- A full state older than the last one taken is ignored. The control side reads the version before the rows, so a
  state of version V holds every change up to V and perhaps some later ones. A peer newer than V is therefore kept
  though the state lacks it; one not newer than V that the state lacks has ended.
- A connection that ended during this run never comes back, whatever a later message says.
- An addition not newer than the last full state is stale: had it still been true, that state would have had it.

Addresses and keys belong to one connection, and who loses one has ended. Networks behind clients do not: several may
name one, it is the newest's, and passes to another when that one ends or no longer names it.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterable

from servers.hostnet.state import AddPeer, HostState, Interface, Peer
from servers.hostnet.wireguard.base import PeerChange

from .held import Difference, Gone, Held, Reason

# How many ended connections are remembered: at 20 reconnects a second that is hours, while messages live seconds.
REMEMBERED = 200_000


class Desired:
    """The host's memory. One thread at a time may use it; ``boot`` is the id of this run."""

    def __init__(self, boot: str, remember: int = REMEMBERED) -> None:
        self.boot = boot
        self.ready = False
        self.version = 0
        self._remember = remember
        self._interfaces: dict[str, Interface] = {}
        self._held: dict[str, Held] = {}
        self._by_key: dict[tuple[str, str], str] = {}
        self._by_ip: dict[tuple[str, str], str] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._by_network: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        # Not yet carried out: by server and key each peer that changed, as it was when last settled (None: it was not
        # there), and connections whose end nobody was told of.
        self._changed: defaultdict[str, dict[str, Peer | None]] = defaultdict(dict)
        self._gone: dict[str, Gone] = {}

    # What messages do

    def take_full(self, state: HostState, now: float) -> bool:
        """Make ``state`` the desired one; false when it is from another run or older than what is known."""
        if state.boot != self.boot or (self.ready and state.version < self.version):
            return False
        self.ready, self.version = True, state.version
        self._take_interfaces(state)
        listed = {peer.connection for interface in state.interfaces for peer in interface.peers}
        for connection, held in list(self._held.items()):
            stale = connection not in listed and held.peer.version <= state.version
            if stale or held.server not in self._interfaces:
                self._end(connection, "asked")
        for interface in state.interfaces:
            for peer in interface.peers:
                if peer.connection not in self._ended:
                    self._hold(interface.server, peer, now)
        return True

    def preview(self, state: HostState, now: float) -> tuple[Interface, ...] | None:
        """The interfaces that would be desired if ``state`` were taken; ``None`` where it would not be."""
        copy = Desired(self.boot, self._remember)
        copy.ready, copy.version = self.ready, self.version
        copy._interfaces, copy._held, copy._ended = dict(self._interfaces), dict(self._held), self._ended.copy()
        copy._by_key, copy._by_ip = dict(self._by_key), dict(self._by_ip)
        for place, connections in self._by_network.items():
            copy._by_network[place] = set(connections)
        return copy.interfaces() if copy.take_full(state, now) else None

    def _take_interfaces(self, state: HostState) -> None:
        interfaces = {i.server: dataclasses.replace(i, peers=()) for i in state.interfaces}
        taken = {i.name for i in state.interfaces} | {str(i.port) for i in state.interfaces}
        # Two states of one version may have read their rows at different moments. An interface that has peers newer
        # than the version was made after it, and the state that lacks it merely read too early.
        newer = {held.server for held in self._held.values() if held.peer.version > state.version}
        for server in newer & self._interfaces.keys() - interfaces.keys():
            kept = self._interfaces[server]
            if not {kept.name, str(kept.port)} & taken:
                interfaces[server] = kept
        self._interfaces = interfaces

    def add(self, message: AddPeer, now: float) -> str:
        """Take one new peer. Return an empty text when it is desired now, else why it is refused."""
        for connection in message.replaces:
            if connection != message.peer.connection:
                self._end(connection, "replaced")
        if not self.ready:
            return "no full state yet"
        if self.ended(message.peer.connection):
            return "this connection has ended"
        if message.peer.connection in self._held:
            return ""
        if message.peer.version <= self.version:
            return "older than the state this host has"
        if message.server not in self._interfaces:
            return "no such server on this host"
        return "" if self._hold(message.server, message.peer, now) else "a newer connection has its address or key"

    def remove(self, connections: Iterable[str], reason: Reason = "asked") -> None:
        """End these connections for good, known or not, also before the first full state."""
        for connection in connections:
            self._end(connection, reason)

    def retract(self, connections: Iterable[str]) -> None:
        """Want these no more, though they have not ended: each may be added again. WireGuard is told to remove them."""
        for connection in connections:
            self._forget(connection)

    def _hold(self, server: str, peer: Peer, now: float) -> bool:
        """Want ``peer``; false when a newer one has its key or an address, in which case this one has ended."""
        old = self._held.get(peer.connection)
        if old is not None and (old.peer.version > peer.version or (old.server, old.peer) == (server, peer)):
            return True
        owners = [
            self._by_key.get((server, peer.public_key)),
            *[self._by_ip.get((server, i)) for i in peer.allowed_ips],
        ]
        others = {owner for owner in owners if owner is not None and owner != peer.connection}
        # An address or a key belongs to one open connection at a time, so the older of two has ended, although the
        # message that says so is not here yet.
        if any(self._held[connection].peer.version >= peer.version for connection in others):
            self._end(peer.connection, "replaced")
            return False
        for connection in others:
            self._end(connection, "replaced")
        if old is not None:
            self._forget(peer.connection)
        self._note(server, peer)
        self._held[peer.connection] = Held(server, peer, old.since if old else now)
        self._by_key[server, peer.public_key] = peer.connection
        for ip in peer.allowed_ips:
            self._by_ip[server, ip] = peer.connection
        for network in peer.networks:
            self._by_network[server, network].add(peer.connection)
        return True

    def _note(self, server: str, peer: Peer) -> None:
        """Before ``peer`` comes or goes: remember how it was, and those who may win or lose a network by it."""
        changed = self._changed[server]
        if peer.public_key not in changed:
            changed[peer.public_key] = self._routed(server, self._by_key.get((server, peer.public_key)))
        for network in peer.routed:
            for connection in self._by_network.get((server, network), ()):
                key = self._held[connection].peer.public_key
                if key not in changed:
                    changed[key] = self._routed(server, connection)

    def _end(self, connection: str, reason: Reason) -> None:
        self._remember_ended(connection)
        held = self._forget(connection)
        if held is None:
            self._gone.setdefault(connection, Gone(connection, reason))
        else:
            self._gone[connection] = Gone(connection, reason, held.server, held.peer.routed)

    def _remember_ended(self, connection: str) -> None:
        self._ended[connection] = None
        self._ended.move_to_end(connection)
        if len(self._ended) > self._remember:
            self._ended.popitem(last=False)

    def _forget(self, connection: str) -> Held | None:
        held = self._held.get(connection)
        if held is None:
            return None
        server, peer = held.server, held.peer
        self._note(server, peer)
        del self._held[connection]
        del self._by_key[server, peer.public_key]
        for ip in peer.allowed_ips:
            del self._by_ip[server, ip]
        for network in peer.networks:
            self._by_network[server, network].discard(connection)
            if not self._by_network[server, network]:
                del self._by_network[server, network]
        return held

    # What is desired

    def interfaces(self) -> tuple[Interface, ...]:
        """Every desired interface with the peers desired on it, each network with the one peer that it is routed to."""
        peers: defaultdict[str, list[Peer]] = defaultdict(list)
        for held in self._held.values():
            peers[held.server].append(self._with_own_networks(held))
        return tuple(dataclasses.replace(i, peers=tuple(peers[server])) for server, i in self._interfaces.items())

    def _with_own_networks(self, held: Held) -> Peer:
        """The peer with those of its networks that are routed to it and not to another one that names them too."""
        peer = held.peer
        if not peer.networks:
            return peer
        own = tuple(network for network in peer.networks if self._owner(held.server, network) == peer.connection)
        return peer if own == peer.networks else dataclasses.replace(peer, networks=own)

    def _owner(self, server: str, network: str) -> str:
        """Whose ``network`` is: whoever has it as its own address, else the newest of those that name it."""
        address = self._by_ip.get((server, network))
        return address or max(
            self._by_network[server, network], key=lambda connection: (self._held[connection].peer.version, connection)
        )

    def _routed(self, server: str, connection: str | None) -> Peer | None:
        return self._with_own_networks(self._held[connection]) if connection is not None else None

    def interface(self, server: str) -> Interface | None:
        """The settings of the interface of ``server``, without its peers."""
        return self._interfaces.get(server)

    def held(self) -> Collection[Held]:
        return self._held.values()

    def holds(self, connection: str) -> bool:
        return connection in self._held

    def ended(self, connection: str) -> bool:
        return connection in self._ended

    def uses(self, allowed_ip: str) -> bool:
        """Whether a peer on any interface has this allowed IP, be it its own address or a network behind it."""
        return any((s, allowed_ip) in self._by_ip or (s, allowed_ip) in self._by_network for s in self._interfaces)

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
            now = self._routed(server, self._by_key.get((server, key)))
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
            now = self._routed(server, self._by_key.get((server, key)))
            if now == before:
                continue
            if before is not None:
                gone.append(before)
            if now is not None:
                new.append(now)
        return Difference(tuple(gone), tuple(new))

    def mark_applied(self, server: str) -> None:
        """WireGuard now has every change of ``server``."""
        self._changed.pop(server, None)

    def take_gone(self, unsettled: Collection[str] = ()) -> list[Gone]:
        """Hand out, once, the ended connections, save those of servers where WireGuard did not take the change."""
        gone = [gone for gone in self._gone.values() if gone.server not in unsettled]
        for each in gone:
            del self._gone[each.connection]
        return gone
