"""Which machine each client's addresses and networks lie behind, as far as the mesh leads there. Pure.

Who is where is worked out by ``reconcile.remotes``; here it becomes what lies behind each machine of the mesh.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from servers.hostnet.state import Interface, Mesh, MeshPeer, Remote


class Membership:
    """The host's memory. One thread at a time."""

    def __init__(self) -> None:
        self.mesh: Mesh | None = None
        self.peers: dict[str, MeshPeer] = {}  # by host
        self.owners: dict[str, str] = {}  # addresses and networks of clients: the host that they are behind
        # By interface, what linked servers' routes lead to, and by which host. Of what lies behind two nothing is here.
        self.ways: dict[str, dict[str, str]] = {}
        # What is at the other ends of links that OpenVPN carries from another machine, and by which.
        self.ends: dict[str, str] = {}

    def take_full(self, mesh: Mesh | None, remotes: Iterable[Remote], interfaces: Sequence[Interface] = ()) -> None:
        """Make ``mesh`` the desired one, with these clients on the other machines, and what ``interfaces`` are linked
        with."""
        self.remember(mesh)
        self.owners = {}
        self.change((), remotes)
        self.ways, self.ends = self._ways(interfaces), self._ends(interfaces)

    def _ways(self, interfaces: Iterable[Interface]) -> dict[str, dict[str, str]]:
        """A network lies behind one machine; of two that claim it, the first one has it, and clients come before."""
        taken: dict[str, str] = {}
        found: dict[str, dict[str, str]] = {}
        for interface in interfaces:
            for link in interface.links:
                for route in link.reached if link.via in self.peers else ():
                    if route.network in self.owners or taken.setdefault(route.network, link.via) != link.via:
                        continue
                    found.setdefault(interface.name, {})[route.network] = link.via
        return found

    def _ends(self, interfaces: Iterable[Interface]) -> dict[str, str]:
        """Reached from everywhere on this machine, as clients are, so that answers to them find their way."""
        found: dict[str, str] = {}
        for interface in interfaces:
            versions = {":" in address for address in interface.addresses}
            for link in interface.links:
                for network in (*link.networks, *link.behind) if link.there and link.via in self.peers else ():
                    if (":" in network) in versions and network not in self.owners:
                        found.setdefault(network, link.via)
        return found

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
        for network, host in {**self.reached(), **self.ends}.items():
            found[host].append(network)
        return found

    def reached(self) -> dict[str, str]:
        """All that is in ``ways``, and by which host."""
        return {network: host for networks in self.ways.values() for network, host in networks.items()}
