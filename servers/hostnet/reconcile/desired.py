"""What this host should be right now, worked out from messages that may come late, twice or in any order. Pure.

The rule is that an old message never wins:

- Nothing is added before the first full state, and that one must answer this run's hello (its boot id).
- A full state older than the last one taken is ignored. The control side reads the version before the rows, so a
  state of version V holds every change up to V and perhaps some later ones. A peer newer than V is therefore kept
  though the state lacks it; one not newer than V that the state lacks has ended.
- A connection that ended during this run never comes back, whatever a later message says.
- An addition not newer than the last full state is stale: had it still been true, that state would have had it.
- A connection that ended may linger (see ``Peer``), until its time is over, a state has it no more, or its address or
  key belongs to another one, whichever is first. Once gone it is as ended as any other.

Clients of the same servers that are on other hosts are in ``remotes``, by rules of the same kind. Whoever lingers here
while its address is another host's is gone at once.

Addresses and keys belong to one connection, and who loses one has ended. Networks behind clients do not: several may
name one, it is the newest's, and passes to another when that one ends or no longer names it.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterable

from servers.hostnet import clock
from servers.hostnet.state import AddPeer, HostState, Interface, Peer, Remote

from .held import Gone, Held, Reason
from .indexed import Indexed
from .remotes import Remotes

# How many ended connections are remembered: at 20 reconnects a second that is hours, while messages live seconds.
REMEMBERED = 200_000


class Desired:
    """The host's memory. One thread at a time may use it; ``boot`` is the id of this run. Nobody sets ``steady``."""

    def __init__(self, boot: str, remember: int = REMEMBERED, steady: Callable[[], float] = clock.steady) -> None:
        self.boot = boot
        self.ready = False
        self.version = 0
        self._remember = remember
        self._interfaces: dict[str, Interface] = {}
        self._steady = steady
        self.peers = Indexed(steady)
        self.remotes = Remotes(remember, self.uses)
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._gone: dict[str, Gone] = {}  # whose end nobody was told of

    # What messages do

    def take_full(self, state: HostState, now: float) -> bool:
        """Make ``state`` the desired one; false when it is from another run or older than what is known."""
        if state.boot != self.boot or (self.ready and state.version < self.version):
            return False
        self.ready, self.version = True, state.version
        self._take_interfaces(state)
        self.remotes.take_full(state)
        listed = {peer.connection for interface in state.interfaces for peer in interface.peers}
        for connection, held in list(self.peers.by_connection.items()):
            stale = connection not in listed and held.peer.version <= state.version
            if stale or held.server not in self._interfaces:
                self._end(connection, "asked")
        self._cut_off_moved()
        # The newest first: whoever has lost its address or key to one of them takes nobody else's place before that.
        every = [(peer.version, interface.server, peer) for interface in state.interfaces for peer in interface.peers]
        for _, server, peer in sorted(every, key=lambda each: each[0], reverse=True):
            if peer.lingers:
                self._let_linger(server, peer, now)
            elif not self.ended(peer.connection):
                self._hold(server, peer, now)
        return True

    def preview(self, state: HostState, now: float) -> HostState | None:
        """What would be desired if ``state`` were taken; ``None`` where it would not be."""
        copy = Desired(self.boot, self._remember, self._steady)
        copy.ready, copy.version = self.ready, self.version
        copy._interfaces, copy._ended, copy.peers = dict(self._interfaces), self._ended.copy(), self.peers.copy()
        copy.remotes = self.remotes.copy(copy.uses)
        if not copy.take_full(state, now):
            return None
        return dataclasses.replace(state, interfaces=copy.interfaces(), remotes=copy.remotes.all())

    def _take_interfaces(self, state: HostState) -> None:
        interfaces = {i.server: dataclasses.replace(i, peers=()) for i in state.interfaces}
        taken = {i.name for i in state.interfaces} | {str(i.port) for i in state.interfaces}
        # Two states of one version may have read their rows at different moments. An interface that has peers newer
        # than the version was made after it, and the state that lacks it merely read too early.
        newer = {held.server for held in self.peers.by_connection.values() if held.peer.version > state.version}
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
        if message.peer.connection in self.peers.by_connection:
            return ""
        if message.peer.version <= self.version:
            return "older than the state this host has"
        if message.server not in self._interfaces:
            return "no such server on this host"
        return "" if self._hold(message.server, message.peer, now) else "a newer connection has its address or key"

    def may_follow(self, message: AddPeer) -> bool:
        """Whether it would be taken now, in the place of an open connection with the very same addresses."""
        peer = message.peer
        if not self.ready or self.ended(peer.connection) or self.holds(peer.connection) or peer.version <= self.version:
            return False
        owners = {self.peers.by_ip.get((message.server, ip), "") for ip in peer.allowed_ips}
        return all(owner in message.replaces and self.holds(owner) for owner in owners)

    def remove(self, connections: Iterable[str], reason: Reason = "asked", lingers: float = 0.0) -> None:
        """End these connections for good, known or not, also before the first full state; those that are here linger
        for so many seconds."""
        for connection in connections:
            self._end(connection, reason, lingers)

    def add_remotes(self, remotes: Iterable[Remote]) -> None:
        self.remotes.add(remotes)
        self._cut_off_moved()

    def _cut_off_moved(self) -> None:
        """Whoever lingers with an address that another host's client has: that one is not to be shut in with it."""
        for connection in list(self.peers.lingering):
            if self._is_elsewhere(self.peers.by_connection[connection].peer):
                self.peers.forget(connection)

    def _is_elsewhere(self, peer: Peer) -> bool:
        """Whether a client of another host has an address of it."""
        return any(self.remotes.has(ip) for ip in peer.allowed_ips)

    def end_overdue(self) -> None:
        """Whoever has lingered long enough is not desired any more."""
        for connection in self.peers.lingering.over():
            self.peers.forget(connection)

    def cut_short(self, server: str = "") -> bool:
        """Nobody lingers any more (on ``server``, or at all); whether anybody did."""
        mine = [each for each in self.peers.lingering if server in {"", self.peers.by_connection[each].server}]
        for connection in mine:
            self.peers.forget(connection)
        return bool(mine)

    def retract(self, connections: Iterable[str]) -> None:
        """Want these no more, though they have not ended: each may be added again. WireGuard is told to remove them."""
        for connection in connections:
            self.peers.forget(connection)

    def _hold(self, server: str, peer: Peer, now: float) -> bool:
        """Want ``peer``; false when a newer one has its key or an address, in which case this one has ended."""
        old = self.peers.by_connection.get(peer.connection)
        if old is not None and (old.peer.version > peer.version or (old.server, old.peer) == (server, peer)):
            return True
        owners = [
            self.peers.by_key.get((server, peer.public_key)),
            *[self.peers.by_ip.get((server, i)) for i in peer.allowed_ips],
        ]
        others = {owner for owner in owners if owner is not None and owner != peer.connection}
        # An address or a key belongs to one open connection at a time, so the older of two has ended, although the
        # message that says so is not here yet.
        if any(self.peers.by_connection[connection].peer.version >= peer.version for connection in others):
            self._end(peer.connection, "replaced")
            return False
        for connection in others:
            self._end(connection, "replaced")
        if old is not None:
            self.peers.forget(peer.connection)
        self.peers.place(Held(server, peer, old.since if old else now))
        return True

    def _end(self, connection: str, reason: Reason, lingers: float = 0.0) -> None:
        self._remember_ended(connection)
        if connection in self.peers.lingering:  # then its end was told of before
            if lingers:
                self.peers.lingering.allow(connection, lingers)
            else:
                self.peers.forget(connection)
            return
        held = self.peers.forget(connection)
        if held is None:
            self._gone.setdefault(connection, Gone(connection, reason))
            return
        self._gone[connection] = Gone(connection, reason, held.server, held.peer.routed)
        if lingers and not self._is_elsewhere(held.peer):
            self.peers.place(dataclasses.replace(held, peer=held.peer.lingering(lingers)))
            self.peers.lingering.allow(connection, lingers)

    def _let_linger(self, server: str, peer: Peer, now: float) -> None:
        """A state says that this one lingers. It may be here from an earlier run; but who is gone stays gone."""
        connection = peer.connection
        if connection in self.peers.by_connection:
            self._end(connection, "asked", peer.lingers)
        elif self._is_elsewhere(peer):
            self._end(connection, "asked")
        elif not self.ended(connection) and self._hold(server, peer.lingering(peer.lingers), now):
            self._remember_ended(connection)
            self.peers.lingering.allow(connection, peer.lingers)
            self._gone[connection] = Gone(connection, "asked", server, peer.allowed_ips)

    def _remember_ended(self, connection: str) -> None:
        self._ended[connection] = None
        self._ended.move_to_end(connection)
        if len(self._ended) > self._remember:
            self._ended.popitem(last=False)

    # What is desired

    def interfaces(self) -> tuple[Interface, ...]:
        """Every desired interface with the peers desired on it, each network with the one peer that it is routed to."""
        peers: defaultdict[str, list[Peer]] = defaultdict(list)
        for held in self.peers.by_connection.values():
            peers[held.server].append(self.peers.with_own_networks(held))
        return tuple(dataclasses.replace(i, peers=tuple(peers[server])) for server, i in self._interfaces.items())

    def interface(self, server: str) -> Interface | None:
        """The settings of the interface of ``server``, without its peers."""
        return self._interfaces.get(server)

    def names(self) -> dict[str, str]:
        """Of the interfaces, by server. Another thread may ask."""
        return {server: interface.name for server, interface in self._interfaces.items()}

    def held(self) -> list[Held]:
        """The open connections."""
        return [held for held in self.peers.by_connection.values() if not held.peer.lingers]

    def count(self) -> int:
        """Of open connections. Another thread may ask."""
        return len(self.peers.by_connection) - len(self.peers.lingering)

    def holds(self, connection: str) -> bool:
        """Whether it is here and open."""
        return self.peers.is_open(connection)

    def ended(self, connection: str) -> bool:
        return connection in self._ended or connection in self.peers.lingering

    def uses(self, allowed_ip: str) -> bool:
        """Whether an open peer on any interface has this allowed IP, be it its own address or a network behind it."""
        return self.peers.uses(allowed_ip, self._interfaces)

    # What ended

    def take_gone(self, unsettled: Collection[str] = ()) -> list[Gone]:
        """Hand out, once, the ended connections, save those of servers where WireGuard did not take the change."""
        gone = [gone for gone in self._gone.values() if gone.server not in unsettled]
        for each in gone:
            del self._gone[each.connection]
        return gone
