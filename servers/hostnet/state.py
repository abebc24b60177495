"""The wanted state of one host, and the messages that change it.

Frozen dataclasses, to and from plain JSON objects. The control side builds them from the database; the host
side plans and applies them. Nothing here imports Django, so that a host can run it alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Peer:
    """One open connection as the host sees it.

    ``connection`` is the connection's opaque id: a host knows peers by it, never by key. ``version`` is the host
    version of the change that made it. ``public_key`` is standard base64 of 32 bytes. ``allowed_ips`` are single
    addresses in prefix notation (``10.9.0.5/32``), sorted v4 before v6.
    """

    connection: str
    version: int
    public_key: str
    allowed_ips: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """A network that clients reach through this host; ``nat`` says whether they appear there as the host itself."""

    network: str
    nat: bool


@dataclass(frozen=True, slots=True)
class Interface:
    """One server on this host: a WireGuard interface with its peers.

    ``addresses`` are the gateway's own, with the prefix length of the tunnel network (``10.9.0.1/24``).
    ``mtu`` 0 leaves the choice to the host. ``ping_timeout`` is in seconds.
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


@dataclass(frozen=True, slots=True)
class HostState:
    """Everything that must be true on one host at ``version``.

    ``boot`` is the boot id of the worker run this state was made for: a worker takes as its first state only one
    that answers its own hello. ``web_port`` is the TCP port of gateway web on the gateways' addresses.
    """

    host: str
    version: int
    boot: str
    web_port: int
    interfaces: tuple[Interface, ...]


@dataclass(frozen=True, slots=True)
class AddPeer:
    """Add one peer to the interface of ``server``; ``peer.version`` is the version of this change.

    ``replaces`` are connections that end with it (the same device with a new key). ``confirm`` is the Redis list
    on which the host answers ``ok`` or ``error: …``; empty when nobody waits.
    """

    server: str
    peer: Peer
    replaces: tuple[str, ...] = ()
    confirm: str = ""


@dataclass(frozen=True, slots=True)
class RemovePeers:
    """Remove these connections, on whichever interface they are."""

    version: int
    connections: tuple[str, ...]


def to_json(value: HostState | AddPeer | RemovePeers) -> dict[str, Any]:
    """A plain JSON object; tuples become lists on the wire."""
    return dataclasses.asdict(value)


def peer_from_json(data: Mapping[str, Any]) -> Peer:
    return Peer(
        connection=str(data["connection"]),
        version=int(data["version"]),
        public_key=str(data["public_key"]),
        allowed_ips=tuple(str(ip) for ip in data["allowed_ips"]),
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
        routes=tuple(Route(str(route["network"]), bool(route["nat"])) for route in data["routes"]),
        peers=tuple(peer_from_json(peer) for peer in data["peers"]),
    )


def host_state_from_json(data: Mapping[str, Any]) -> HostState:
    """Raise ``KeyError``, ``TypeError`` or ``ValueError`` where ``data`` is not a whole state."""
    return HostState(
        host=str(data["host"]),
        version=int(data["version"]),
        boot=str(data["boot"]),
        web_port=int(data["web_port"]),
        interfaces=tuple(interface_from_json(interface) for interface in data["interfaces"]),
    )


def add_peer_from_json(data: Mapping[str, Any]) -> AddPeer:
    return AddPeer(
        server=str(data["server"]),
        peer=peer_from_json(data["peer"]),
        replaces=tuple(str(connection) for connection in data["replaces"]),
        confirm=str(data["confirm"]),
    )


def remove_peers_from_json(data: Mapping[str, Any]) -> RemovePeers:
    return RemovePeers(int(data["version"]), tuple(str(connection) for connection in data["connections"]))
