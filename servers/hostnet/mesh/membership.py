"""Which machine each network of the mesh lies behind, worked out from messages that may come late or twice. Pure.

As with connections, an old message never wins: a state of version V holds every move up to V and perhaps later ones. A
move newer than V is kept though the state says otherwise, and one that is not newer than what is known is ignored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from servers.hostnet.state import Mesh, MeshPeer, Move


@dataclass(frozen=True, slots=True)
class _Word:
    """The last that was said of one network by a message of its own."""

    version: int
    host: str


class Membership:
    """The host's memory. One thread at a time."""

    def __init__(self) -> None:
        self.mesh: Mesh | None = None
        self.peers: dict[str, MeshPeer] = {}  # by host
        self.owners: dict[str, str] = {}  # networks of clients: the host that they are behind
        self._words: dict[str, _Word] = {}
        self._version = 0
        self._ready = False

    def take_full(self, mesh: Mesh | None, version: int) -> None:
        """Make ``mesh`` the desired one; those clients excepted that moved since."""
        self.mesh, self._version, self._ready = mesh, version, True
        self.peers = {peer.host: peer for peer in mesh.peers} if mesh is not None else {}
        self.owners = {network: peer.host for peer in self.peers.values() for network in peer.allowed_ips}
        self._words = {network: word for network, word in self._words.items() if word.version > version}
        for network, word in self._words.items():
            self._place(network, word.host)

    def remember(self, mesh: Mesh) -> None:
        """What was desired in an earlier run, until a state comes; without clients."""
        self.mesh, self.peers = mesh, {peer.host: peer for peer in mesh.peers}

    def move(self, version: int, moves: Iterable[Move]) -> list[str]:
        """Take moves of one version; return the networks that lie elsewhere now. None before the first state, which has
        them all."""
        if not self._ready or self.mesh is None:
            return []
        changed = []
        for each in moves:
            known = self._words.get(each.network)
            # A state says nothing of the version of each: what is not newer than the state is in it.
            if version <= self._version or (known is not None and version <= known.version):
                continue
            self._words[each.network] = _Word(version, each.host)
            if self._place(each.network, each.host):
                changed.append(each.network)
        return changed

    def _place(self, network: str, host: str) -> bool:
        """Whether that changes anything. Behind a machine that is not in the mesh nothing lies."""
        before = self.owners.pop(network, "")
        if host in self.peers:
            self.owners[network] = host
        return self.owners.get(network, "") != before

    def allowed_ips(self) -> dict[str, list[str]]:
        """By host, everything that lies behind it, its own addresses first."""
        found = {host: list(peer.addresses) for host, peer in self.peers.items()}
        for network, host in self.owners.items():
            found[host].append(network)
        return found

    def routed(self) -> set[str]:
        """Everything that is routed into the mesh."""
        return {network for peer in self.peers.values() for network in peer.addresses} | self.owners.keys()
