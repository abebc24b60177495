"""Which machine each client's addresses and networks lie behind, as far as the mesh leads there. Pure.

Who is where is worked out by ``reconcile.remotes``; here it becomes what lies behind each machine of the mesh.
"""

from __future__ import annotations

from collections.abc import Iterable

from servers.hostnet.state import Mesh, MeshPeer, Remote


class Membership:
    """The host's memory. One thread at a time."""

    def __init__(self) -> None:
        self.mesh: Mesh | None = None
        self.peers: dict[str, MeshPeer] = {}  # by host
        self.owners: dict[str, str] = {}  # addresses and networks of clients: the host that they are behind

    def take_full(self, mesh: Mesh | None, remotes: Iterable[Remote]) -> None:
        """Make ``mesh`` the desired one, with these clients on the other machines."""
        self.remember(mesh)
        self.owners = {}
        self.change((), remotes)

    def remember(self, mesh: Mesh | None) -> None:
        """What was desired in an earlier run, until a state comes; without clients."""
        self.mesh = mesh
        self.peers = {peer.host: peer for peer in mesh.peers} if mesh is not None else {}

    def change(self, gone: Iterable[Remote], new: Iterable[Remote]) -> list[str]:
        """The networks that lie elsewhere now, sorted. Behind a machine that is not in the mesh nothing lies."""
        before: dict[str, str] = {}
        for remote in gone:
            for network in remote.routed:
                before.setdefault(network, self.owners.get(network, ""))
                if self.owners.get(network) == remote.host:
                    del self.owners[network]
        for remote in new:
            for network in remote.routed:
                before.setdefault(network, self.owners.get(network, ""))
                if remote.host in self.peers:
                    self.owners[network] = remote.host
        return sorted(network for network, host in before.items() if self.owners.get(network, "") != host)

    def allowed_ips(self) -> dict[str, list[str]]:
        """By host, everything that lies behind it, its own addresses first."""
        found = {host: list(peer.networks) for host, peer in self.peers.items()}
        for network, host in self.owners.items():
            found[host].append(network)
        return found
