"""The names of clients as DNS records, and what must be said to get from one set of them to the next. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from servers.hostnet.state import Peer, Remote

# Seconds: who resolved a name a moment ago asks again, so that names are right within two seconds of a change.
TTL = 1

Value = tuple[str, str]  # type and data, such as ("A", "10.9.0.5")
Named = tuple[tuple[str, ...], tuple[str, ...]]  # a peer's names and allowed IPs: all that its records come from
Record = tuple[str, Value]  # with the name that has it, in lower case and with a dot at the end


@dataclass(slots=True)
class Changes:
    """First everything of the names in ``removed`` goes, then ``added`` comes."""

    removed: list[str] = field(default_factory=list)
    added: list[Record] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.removed or self.added)

    def lines(self) -> list[str]:
        return [line(record) for record in self.added]


def line(record: Record) -> str:
    """The record as in a zone file."""
    name, (kind, data) = record
    return f"{name} {TTL} IN {kind} {data}"


def records_of(named: Named) -> Iterator[Record]:
    """All names with all addresses; of an address, the first name."""
    names, allowed_ips = named
    for ip in allowed_ips if names else ():
        address = ip.partition("/")[0]
        kind = "AAAA" if ":" in address else "A"
        yield from ((f"{name.lower()}.", (kind, address)) for name in names)
        yield f"{ipaddress.ip_address(address).reverse_pointer}.", ("PTR", f"{names[0].lower()}.")


class Records:
    """The records of the peers of one server. Several peers may have the same record, as two of a user's devices
    have their user's name."""

    def __init__(self) -> None:
        self._peers: dict[str, Named] = {}  # by connection
        self._of_name: dict[str, dict[Value, int]] = {}  # and how many peers have it

    def all(self) -> list[Record]:
        return [(name, value) for name, values in self._of_name.items() for value in values]

    def replace(self, peers: Iterable[Peer | Remote]) -> Changes:
        """From now on these are all peers. What did not change costs a comparison, and is not in the answer."""
        desired = {peer.connection: (peer.names, peer.allowed_ips) for peer in peers if peer.names}
        gone = [connection for connection, named in self._peers.items() if desired.get(connection) != named]
        return self._change(gone, {each: desired[each] for each in desired if desired[each] != self._peers.get(each)})

    def change(self, gone: Iterable[Peer | Remote], new: Iterable[Peer | Remote]) -> Changes:
        """Peers that are there no longer, and such as came; one that was altered is in both. It costs what changes."""
        come = {peer.connection: (peer.names, peer.allowed_ips) for peer in new if peer.names}
        return self._change([*(peer.connection for peer in gone), *come], come)

    def _change(self, gone: Iterable[str], come: Mapping[str, Named]) -> Changes:
        before: dict[str, set[Value]] = {}
        for connection in gone:
            for name, value in records_of(self._peers.pop(connection, ((), ()))):
                before.setdefault(name, set(self._of_name[name]))
                self._release(name, value)
        for connection, named in come.items():
            self._peers[connection] = named
            for name, value in records_of(named):
                values = self._of_name.setdefault(name, {})
                before.setdefault(name, set(values))
                values[value] = values.get(value, 0) + 1
        return self._difference(before)

    def _release(self, name: str, value: Value) -> None:
        values = self._of_name[name]
        values[value] -= 1
        if not values[value]:
            del values[value]
        if not values:
            del self._of_name[name]

    def _difference(self, before: Mapping[str, set[Value]]) -> Changes:
        changes = Changes()
        for name, old in before.items():
            now = self._of_name.get(name, {})
            if old - now.keys():  # a single record cannot be taken from unbound, only all of a name
                changes.removed.append(name)
                old = set()
            changes.added += [(name, value) for value in now if value not in old]
        return changes
