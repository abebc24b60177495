"""Which ports of this host lead to which client, as elements of the firewall's maps and sets. Pure.

The client may be on another machine: a port that is forwarded to it is on every host of its server, and what arrives
here is handed on through the mesh.

For IP version 4 (and likewise 6) there are two:

- ``forwards4`` maps protocol and port of the host to address and port of the client.
- ``targets4`` holds every such address and port: what a forwarded connection must be for to be let through. It is
  asked for each packet, so that a forward that is taken away ends what it carried.
"""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from servers.hostnet.state import Peer, Remote

PROTOCOLS = ("tcp", "udp")

# A set or map of the table, and the text of one of its elements as nft writes it: "forwards4", "tcp . 80 : …".
Element = tuple[str, str]
# IP version, protocol and port of the host.
Key = tuple[int, str, int]


@dataclass(frozen=True, slots=True, order=True)
class Claim:
    """A client's wish for a port; of several a peer's of this host is granted, and of these the newest one's. Versions
    of other hosts cannot be compared with ours, so there the number of the connection says which one is newer."""

    here: bool
    age: int
    connection: str
    host: str  # empty: this one
    address: str
    port: int


@dataclass(slots=True)
class Changed:
    """Elements to delete and to add, and those that stay but lead to the client by another way than before."""

    delete: list[Element] = field(default_factory=list)
    add: list[Element] = field(default_factory=list)
    elsewhere: list[Element] = field(default_factory=list)


class Forwards:
    """The forwards of all clients, of this host and of others. The same clients give the same elements, in whichever
    order they came."""

    def __init__(self, peers: Iterable[Peer | Remote] = ()) -> None:
        self._claims: defaultdict[Key, dict[str, Claim]] = defaultdict(dict)
        self._granted: dict[Key, Claim] = {}
        self._targets: Counter[Element] = Counter()
        self.change((), peers)

    def elements(self) -> set[Element]:
        return {element for key, claim in self._granted.items() for element in _elements(key, claim)}

    def elsewhere(self, before: Forwards) -> list[Element]:
        """The elements that lead to another host than they did in ``before``."""
        both = [(key, claim, before._granted.get(key)) for key, claim in self._granted.items()]
        return [_elements(key, claim)[0] for key, claim, old in both if old is not None and old.host != claim.host]

    def change(self, gone: Iterable[Peer | Remote], new: Iterable[Peer | Remote]) -> Changed:
        """Take clients away and add others.

        Clients that are not known are no error among ``gone``. The cost is that of the ports these peers have.
        """
        touched: dict[Key, None] = {}
        for peer in gone:
            for key, _ in _claims(peer):
                self._claims[key].pop(peer.connection, None)
                touched[key] = None
        for peer in new:
            for key, claim in _claims(peer):
                self._claims[key][peer.connection] = claim
                touched[key] = None
        return self._settle(touched)

    def _settle(self, keys: Iterable[Key]) -> Changed:
        counts: Counter[Element] = Counter()
        moved: list[Element] = []
        for key in keys:
            # The admin refuses two forwards of one port, but while one moves to another user both may be here.
            claim, old = max(self._claims[key].values(), default=None), self._granted.pop(key, None)
            if claim is not None:
                self._granted[key] = claim
                counts.update(_elements(key, claim))
            else:
                del self._claims[key]
            if old is not None:
                counts.subtract(_elements(key, old))
                moved += _elements(key, old)[:1] if claim is not None and claim.host != old.host else ()
        return self._count(counts, moved)

    def _count(self, counts: Counter[Element], moved: list[Element]) -> Changed:
        """Several ports of the host may lead to one of a client: its element goes with the last of them."""
        changed = Changed(elsewhere=moved)
        for element, difference in counts.items():
            before = self._targets[element]
            self._targets[element] += difference
            if not self._targets[element]:
                del self._targets[element]
            if before and not before + difference:
                changed.delete.append(element)
            elif difference and not before:
                changed.add.append(element)
        return changed


def _claims(peer: Peer | Remote) -> Iterator[tuple[Key, Claim]]:
    if not peer.forwards:
        return
    here, age, host = (True, peer.version, "") if isinstance(peer, Peer) else (False, peer.number, peer.host)
    for allowed in peer.allowed_ips:
        version, address = version_and_address(allowed.partition("/")[0])
        for forward in peer.forwards:
            # It becomes program text. The messages were checked; this is the door itself.
            if forward.protocol not in PROTOCOLS:
                raise ValueError("protocol of a forward")
            for offset in range(int(forward.last) - int(forward.port) + 1):
                key = (version, forward.protocol, int(forward.port) + offset)
                yield key, Claim(here, age, peer.connection, host, address, int(forward.to_port) + offset)


def version_and_address(text: str) -> tuple[int, str]:
    """IP version and address as nft writes it; ``ipaddress`` would cost half of a state with many forwards."""
    version, family = (6, socket.AF_INET6) if ":" in text else (4, socket.AF_INET)
    try:
        return version, socket.inet_ntop(family, socket.inet_pton(family, text))
    except OSError:
        raise ValueError("address of a peer") from None


def written(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """As nft writes it, which for some IPv6 addresses is not what Python writes."""
    return socket.inet_ntop(socket.AF_INET if address.version == 4 else socket.AF_INET6, address.packed)


def of_protocol(protocol: str, elements: Collection[Element]) -> Iterator[tuple[int, set[int], set[str]]]:
    """Of some elements, for each IP version: the host's ports of ``protocol``, and the addresses that they lead to."""
    for version in (4, 6):
        prefix = f"{protocol} . "
        pairs = [text.removeprefix(prefix).split(" : ") for name, text in elements
                 if name == f"forwards{version}" and text.startswith(prefix)]  # fmt: skip
        if pairs:
            yield version, {int(port) for port, _ in pairs}, {target.split(" . ")[0] for _, target in pairs}


def _elements(key: Key, claim: Claim) -> tuple[Element, Element]:
    version, protocol, port = key
    return (
        (f"forwards{version}", f"{protocol} . {port} : {claim.address} . {claim.port}"),
        (f"targets{version}", f"{claim.address} . {protocol} . {claim.port}"),
    )
