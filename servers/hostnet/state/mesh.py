"""The desired mesh of one host: WireGuard between all machines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MESH_PORT = 51800  # UDP; unless an administrator chooses another one

# What machines call themselves, by IP version, when they hand on what arrived at a forwarded port for a client that is
# on another machine. They are seen between machines alone; these networks are reserved, so nobody has them outside.
RELAYS = {4: "240.0.0.0/4", 6: "64:ff9b:1:e000::/64"}


@dataclass(frozen=True, slots=True)
class MeshPeer:
    """Another machine, known by the id of its host.

    ``endpoints`` are where its WireGuard listens, as ``address:port`` or ``name:port``, the most likely first.
    ``addresses`` are its own in the mesh, each alone in prefix notation; ``relays`` those of ``RELAYS``. Clients that
    are on it are ``Remote``.
    """

    host: str
    public_key: str
    endpoints: tuple[str, ...]
    addresses: tuple[str, ...]
    relays: tuple[str, ...] = ()

    @property
    def networks(self) -> tuple[str, ...]:
        """All that lies behind it whoever is connected there."""
        return self.addresses + self.relays


@dataclass(frozen=True, slots=True)
class Mesh:
    """This machine's part. ``addresses`` are its own, each alone in prefix notation (``fd5c::1/128``). ``mtu`` 0
    leaves the choice to the host. ``serves`` are TCP ports that it opens to the other machines. ``redis`` is where
    Redis listens in the mesh (``[fd5c::1]:9791``), the one to ask first before others. ``relays`` are its own of
    ``RELAYS``, each alone in prefix notation, at most one of each IP version; no interface has them."""

    addresses: tuple[str, ...]
    port: int
    mtu: int
    peers: tuple[MeshPeer, ...]
    serves: tuple[int, ...] = ()
    redis: tuple[str, ...] = ()
    relays: tuple[str, ...] = ()


def mesh_to_json(mesh: Mesh) -> dict[str, Any]:
    return dataclasses.asdict(mesh)


def mesh_from_json(data: Mapping[str, Any]) -> Mesh:
    """Raise ``KeyError``, ``TypeError`` or ``ValueError`` where ``data`` is not a whole mesh."""
    return Mesh(
        addresses=_texts(data["addresses"]),
        port=int(data["port"]),
        mtu=int(data["mtu"]),
        peers=tuple(_peer_from_json(peer) for peer in data["peers"]),
        serves=tuple(int(port) for port in data["serves"]),
        redis=_texts(data["redis"]),
        relays=_texts(data.get("relays", ())),
    )


def _peer_from_json(data: Mapping[str, Any]) -> MeshPeer:
    return MeshPeer(
        host=str(data["host"]),
        public_key=str(data["public_key"]),
        endpoints=_texts(data["endpoints"]),
        addresses=_texts(data["addresses"]),
        relays=_texts(data.get("relays", ())),
    )


def _texts(values: Any) -> tuple[str, ...]:
    if isinstance(values, str):
        raise TypeError("a text in the place of a list")
    return tuple(str(value) for value in values)
