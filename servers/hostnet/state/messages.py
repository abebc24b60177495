"""The desired state of one host, and the messages that change it.

Frozen dataclasses, to and from plain JSON objects. The control side builds them from the database; the host
side plans and applies them.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .forwards import Forward, forward_from_json
from .links import Link, link_from_json
from .mesh import Mesh, mesh_from_json
from .remotes import AddRemotes, Remote, RemoveRemotes, remote_from_json, remote_to_json, remotes_to_json
from .routes import Route, route_from_json
from .version import FORMAT


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask whether ``address`` behind a peer answers: by ICMP where ``port`` is 0, else by a TCP connection.
    ``network`` is the network that it speaks for."""

    network: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Peer:
    """One open connection as the host sees it, with all that follows it to whichever host it is on.

    ``connection`` is the connection's opaque id: a host knows peers by it, never by key. ``version`` is the host
    version of the change that made it. ``public_key`` is standard base64 of 32 bytes. ``allowed_ips`` are its own
    addresses, each alone in prefix notation (``10.9.0.5/32``), sorted v4 before v6. ``networks`` are what is routed
    to it besides: the networks that it serves now, and the probe addresses (alone) of all that it could serve. They
    may move from one peer to another. ``names`` are full DNS names of its addresses, without a dot at the end.

    ``lingers`` is 0 for an open connection. One that has ended lingers for so many seconds from this message: it
    reaches gateway web and nothing else, so that its next ping tells it, and is then removed. It has nothing beside its
    own addresses.
    """

    connection: str
    version: int
    public_key: str
    allowed_ips: tuple[str, ...]
    networks: tuple[str, ...] = ()
    probes: tuple[Probe, ...] = ()
    forwards: tuple[Forward, ...] = ()
    names: tuple[str, ...] = ()
    lingers: float = 0.0

    def lingering(self, seconds: float) -> Peer:
        """What is left of it once its connection has ended."""
        return Peer(self.connection, self.version, self.public_key, self.allowed_ips, lingers=seconds)

    @property
    def routed(self) -> tuple[str, ...]:
        """Everything that WireGuard sends to the peer and takes from it."""
        return self.allowed_ips + self.networks if self.networks else self.allowed_ips


@dataclass(frozen=True, slots=True)
class Split:
    """Names of ``domain`` and below are looked up at ``servers`` (addresses), plainly."""

    domain: str
    servers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dns:
    """The resolver on a server's gateway addresses: names of clients are in ``zone``; everything else is asked of
    ``servers`` (addresses), over TLS (port 853) where ``tls_name`` is their certificate's name, plainly where it is
    empty."""

    zone: str
    servers: tuple[str, ...]
    tls_name: str
    splits: tuple[Split, ...]


@dataclass(frozen=True, slots=True)
class Interface:
    """One server on this host: a WireGuard interface with its peers.

    ``addresses`` are the gateway's own, with the prefix length of the tunnel network (``10.9.0.1/24``).
    ``mtu`` 0 leaves the choice to the host. ``ping_timeout`` is in seconds. Without ``restrict`` clients reach
    whatever this host reaches, not only ``routes``. ``dns`` None: no resolver. ``behind`` are all networks that a
    client could serve, whoever is connected: what is sent to one that nobody serves goes nowhere else. ``links`` are
    the servers that this one is linked with; routes of those that this host carries too are among ``routes``.
    """

    name: str
    server: str
    port: int
    addresses: tuple[str, ...]
    mtu: int
    inter_client: bool
    ping_timeout: int
    routes: tuple[Route, ...]
    peers: tuple[Peer, ...]
    restrict: bool = True
    dns: Dns | None = None
    behind: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway web on another machine: the IP address there and the TCP port."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class HostState:
    """Everything that must be true on one host at ``version``.

    ``boot`` is the boot id of the worker run this state was made for: a worker takes as its first state only one
    that answers its own hello. ``web_port`` is the TCP port of gateway web on the gateways' addresses.
    ``open_foreign_firewalls``: put a rule for our packets into other firewalls that would drop them. ``mesh`` None:
    this machine is in none. ``gateways``: where pings go that clients send to the gateways' addresses, the first that
    answers; empty where gateway web is on this very machine.

    ``remotes`` are the clients of these servers that are on other hosts. ``others`` names every other host
    (public id) with its version, read before the rows were.
    """

    host: str
    version: int
    boot: str
    web_port: int
    interfaces: tuple[Interface, ...]
    open_foreign_firewalls: bool = False
    mesh: Mesh | None = None
    remotes: tuple[Remote, ...] = ()
    others: tuple[tuple[str, int], ...] = ()
    gateways: tuple[Gateway, ...] = ()


@dataclass(frozen=True, slots=True)
class AddPeer:
    """Add one peer to the interface of ``server``; ``peer.version`` is the version of this change.

    ``replaces`` are connections that end with it (the same device with a new key). ``confirm`` is the Redis list
    on which the host answers ``ok`` or ``error: …``; empty when nobody waits. ``hand_over``: what it replaces goes on
    until its first handshake, for so many seconds at most; 0 ends it at once.
    """

    server: str
    peer: Peer
    replaces: tuple[str, ...] = ()
    confirm: str = ""
    hand_over: float = 0.0


@dataclass(frozen=True, slots=True)
class RemovePeers:
    """Remove these connections, on whichever interface they are, once they have lingered: see ``Peer``."""

    version: int
    connections: tuple[str, ...]
    lingers: float = 0.0


@dataclass(frozen=True, slots=True)
class ShowPlan:
    """Say what ``state`` would change, and change nothing. ``confirm`` is the Redis list on which the host answers with
    a JSON object: ``lines`` (texts), or ``error`` (a text)."""

    state: HostState
    confirm: str


Message = HostState | AddPeer | RemovePeers | AddRemotes | RemoveRemotes | ShowPlan


def to_json(value: Message) -> dict[str, Any]:
    """A plain JSON object; tuples become lists on the wire. ``format`` is what a reader must know at least."""
    return {"format": FORMAT, **_to_json(value)}


def _to_json(value: Message) -> dict[str, Any]:
    if isinstance(value, ShowPlan):
        return {"state": to_json(value.state), "confirm": value.confirm}
    if isinstance(value, AddRemotes | RemoveRemotes):
        return remotes_to_json(value)
    if isinstance(value, HostState):
        value, remotes = dataclasses.replace(value, remotes=()), value.remotes
        return {**_plain(value), "remotes": [remote_to_json(each) for each in remotes]}
    return _plain(value)


def _plain(value: HostState | AddPeer | RemovePeers) -> dict[str, Any]:
    data = dataclasses.asdict(value)
    peers = [data["peer"]] if "peer" in data else [p for i in data.get("interfaces", ()) for p in i["peers"]]
    for peer in peers:
        for name in ("networks", "probes", "forwards", "names", "lingers"):
            if not peer[name]:
                del peer[name]
    return data


def peer_from_json(data: Mapping[str, Any]) -> Peer:
    return Peer(
        connection=str(data["connection"]),
        version=int(data["version"]),
        public_key=str(data["public_key"]),
        allowed_ips=tuple(str(ip) for ip in data["allowed_ips"]),
        # Left out where empty, as with most peers: a state may have ten thousand of them.
        networks=tuple(str(network) for network in data.get("networks", ())),
        probes=tuple(
            Probe(str(probe["network"]), str(probe["address"]), int(probe["port"])) for probe in data.get("probes", ())
        ),
        forwards=tuple(forward_from_json(forward) for forward in data.get("forwards", ())),
        names=tuple(str(name) for name in data.get("names", ())),
        lingers=float(data.get("lingers", 0)),
    )


def _dns_from_json(data: Mapping[str, Any]) -> Dns:
    return Dns(
        zone=str(data["zone"]),
        servers=tuple(str(server) for server in data["servers"]),
        tls_name=str(data["tls_name"]),
        splits=tuple(Split(str(s["domain"]), tuple(str(server) for server in s["servers"])) for s in data["splits"]),
    )


def interface_from_json(data: Mapping[str, Any]) -> Interface:
    return Interface(
        name=str(data["name"]),
        server=str(data["server"]),
        port=int(data["port"]),
        addresses=tuple(str(address) for address in data["addresses"]),
        mtu=int(data["mtu"]),
        inter_client=bool(data["inter_client"]),
        ping_timeout=int(data["ping_timeout"]),
        routes=tuple(route_from_json(route) for route in data["routes"]),
        peers=tuple(peer_from_json(peer) for peer in data["peers"]),
        restrict=bool(data["restrict"]),
        dns=_dns_from_json(data["dns"]) if data["dns"] is not None else None,
        behind=tuple(str(network) for network in data["behind"]),
        links=tuple(link_from_json(link) for link in data.get("links", ())),
    )


def gateway_from_json(data: Mapping[str, Any]) -> Gateway:
    """Raise ``ValueError`` for what is no address or no port."""
    address, port = ipaddress.ip_address(str(data["address"])), int(data["port"])
    if not 0 < port < 65536:
        raise ValueError("no port")
    return Gateway(str(address), port)


def host_state_from_json(data: Mapping[str, Any]) -> HostState:
    """Raise ``KeyError``, ``TypeError`` or ``ValueError`` where ``data`` is not a whole state."""
    return HostState(
        host=str(data["host"]),
        version=int(data["version"]),
        boot=str(data["boot"]),
        web_port=int(data["web_port"]),
        interfaces=tuple(interface_from_json(interface) for interface in data["interfaces"]),
        open_foreign_firewalls=bool(data["open_foreign_firewalls"]),
        mesh=mesh_from_json(data["mesh"]) if data.get("mesh") is not None else None,
        remotes=tuple(remote_from_json(each) for each in data.get("remotes", ())),
        others=tuple((str(host), int(version)) for host, version in data.get("others", ())),
        gateways=tuple(gateway_from_json(gateway) for gateway in data["gateways"]),
    )


def add_peer_from_json(data: Mapping[str, Any]) -> AddPeer:
    return AddPeer(
        server=str(data["server"]),
        peer=peer_from_json(data["peer"]),
        replaces=tuple(str(connection) for connection in data["replaces"]),
        confirm=str(data["confirm"]),
        hand_over=float(data.get("hand_over", 0)),
    )


def remove_peers_from_json(data: Mapping[str, Any]) -> RemovePeers:
    return RemovePeers(
        version=int(data["version"]),
        connections=tuple(str(connection) for connection in data["connections"]),
        lingers=float(data["lingers"]),
    )
