"""Which clients of this host's servers are on which other host, worked out from messages that may come late, twice or
in any order. Pure.

An old message never wins, here as with peers:

- Nothing is added before the first full state.
- A full state names all other hosts with their versions, read before the rows: it holds every change of a host up to
  its version. A remote that the state lacks has ended, unless it is newer than that. Of a host that it does not name it
  says nothing, unless an older state did: that one was deleted since.
- A remote that ended never comes back, and one that is told of late, when a full state of its time lacked it, neither:
  not even by another state, of the same version of this host, that was read before that one.
- Of two remotes that have one address or network the newer has it. An open peer of this host comes before both: should
  that one have ended, this host is told so by a message of its own.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable

from servers.hostnet.state import HostState
from servers.hostnet.state.remotes import Remote


@dataclasses.dataclass(frozen=True, slots=True)
class Moved:
    """How remotes changed since that was last asked: as they were told before, and as they are now. One that was
    altered is in both."""

    gone: tuple[Remote, ...] = ()
    new: tuple[Remote, ...] = ()

    def of(self, server: str) -> Moved:
        gone, new = ([each for each in some if each.server == server] for some in (self.gone, self.new))
        return Moved(tuple(gone), tuple(new))


class Remotes:
    """The host's memory of them. One thread at a time. ``is_here`` says whether an open peer of this host has an
    address or network."""

    def __init__(self, remember: int, is_here: Callable[[str], bool]) -> None:
        self._remember = remember
        self._is_here = is_here
        self._own = ""
        self._servers: frozenset[str] = frozenset()
        self._others: dict[str, int] = {}  # versions of the other hosts, as of the states that were taken
        self._named: dict[str, int] = {}  # and the version of the last state that named it
        self._ready = False
        self._held: dict[str, Remote] = {}  # by connection
        self._by_network: defaultdict[str, set[str]] = defaultdict(set)  # those that are placed
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._told: dict[str, Remote] = {}
        self._touched: set[str] = set()

    def copy(self, is_here: Callable[[str], bool]) -> Remotes:
        copy = Remotes(self._remember, is_here)
        copy._own, copy._servers, copy._ready = self._own, self._servers, self._ready
        copy._others, copy._named = dict(self._others), dict(self._named)
        copy._held, copy._ended = dict(self._held), self._ended.copy()
        for network, connections in self._by_network.items():
            copy._by_network[network] = set(connections)
        return copy

    # What messages do

    def take_full(self, state: HostState) -> None:
        """Take what a state says, that has been found to be neither old nor of another run."""
        self._own, self._ready = state.host, True
        here = {interface.server for interface in state.interfaces}
        self._servers = frozenset(here | {link.server for each in state.interfaces for link in each.links})
        stated, before = dict(state.others), dict(self._others)
        late = any(version < before.get(host, 0) for host, version in stated.items())
        listed = {remote.connection for remote in state.remotes}
        for connection, held in list(self._held.items()):
            if connection in listed:
                continue
            deleted = held.host not in stated and self._named.get(held.host, state.version) < state.version
            if held.server not in self._servers or not held.host or deleted:
                self._forget(connection)
            elif held.version <= stated.get(held.host, -1):
                self._end(connection)
        for host, version in stated.items():
            self._others[host] = max(version, self._others.get(host, 0))
            self._named[host] = state.version
        for remote in state.remotes:
            known = remote.connection in self._held
            # A newer state would have had it, on its host or waiting for one.
            ended = late and not known and remote.version <= before.get(remote.host, remote.version)
            if self._may_be(remote) and not ended and (remote.host or not known):
                self._hold(remote)

    def add(self, remotes: Iterable[Remote]) -> None:
        if not self._ready:
            return
        for remote in remotes:
            known = self._held.get(remote.connection)
            if not self._may_be(remote) or (known is not None and known.host):
                continue
            # Had it still been true, the state would have had it.
            if known is not None or remote.version > self._others.get(remote.host, 0):
                self._hold(remote)

    def remove(self, connections: Iterable[str]) -> None:
        """For good, known or not, also before the first full state."""
        for connection in connections:
            self._end(connection)

    def _may_be(self, remote: Remote) -> bool:
        return remote.connection not in self._ended and remote.server in self._servers and remote.host != self._own

    def _hold(self, remote: Remote) -> None:
        if self._held.get(remote.connection) == remote:
            return
        self._forget(remote.connection)
        self._held[remote.connection] = remote
        if remote.host:
            for network in remote.routed:
                self._by_network[network].add(remote.connection)
        self.touch(remote.routed)
        self._touched.add(remote.connection)

    def _forget(self, connection: str) -> None:
        held = self._held.pop(connection, None)
        if held is None:
            return
        for network in held.routed if held.host else ():
            self._by_network[network].discard(connection)
            if not self._by_network[network]:
                del self._by_network[network]
        self.touch(held.routed)
        self._touched.add(connection)

    def _end(self, connection: str) -> None:
        self._ended[connection] = None
        self._ended.move_to_end(connection)
        if len(self._ended) > self._remember:
            self._ended.popitem(last=False)
        self._forget(connection)

    # What is desired

    def has(self, network: str) -> bool:
        """Whether it is another host's."""
        return network in self._by_network

    def touch(self, networks: Iterable[str]) -> None:
        """Somebody has them now who had not, or has them no more."""
        for network in networks:
            self._touched |= self._by_network.get(network, set())

    def all(self) -> tuple[Remote, ...]:
        """All that are placed, each with what is sent to it and to no other one."""
        return tuple(found for connection in self._held if (found := self._effective(connection)) is not None)

    def take_changes(self) -> Moved:
        """What changed since this was last asked."""
        gone, new = [], []
        for connection in self._touched:
            before, now = self._told.pop(connection, None), self._effective(connection)
            if now is not None:
                self._told[connection] = now
            if before == now:
                continue
            gone += [before] if before is not None else []
            new += [now] if now is not None else []
        self._touched.clear()
        return Moved(tuple(gone), tuple(new))

    def take_all(self) -> tuple[Remote, ...]:
        """As they are now, whatever was told before."""
        now = self.all()
        self._told = {remote.connection: remote for remote in now}
        self._touched.clear()
        return now

    def _effective(self, connection: str) -> Remote | None:
        held = self._held.get(connection)
        if held is None or not held.host:
            return None
        addresses = tuple(ip for ip in held.allowed_ips if self._owner(ip) == connection)
        if not addresses:
            return None
        networks = tuple(network for network in held.networks if self._owner(network) == connection)
        if (addresses, networks) == (held.allowed_ips, held.networks):
            return held
        return dataclasses.replace(held, allowed_ips=addresses, networks=networks)

    def _owner(self, network: str) -> str:
        if self._is_here(network):
            return ""
        found = self._by_network.get(network, ())
        return max(found, key=lambda connection: self._held[connection].number, default="")
