"""How a joined machine is: its mesh, its way to Redis, and whether the control side hears its worker."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from dataclasses import asdict, dataclass
from typing import Any

import redis

from servers.hostnet.clock import steady
from servers.hostnet.mesh import link, memory
from servers.hostnet.mesh.reach import LIMIT, ask, targets
from servers.hostnet.netlink.links import LinkError
from servers.hostnet.probes.sockets import Sockets
from servers.hostnet.state import MESH_INTERFACE, Mesh, redis_connections
from servers.hostnet.state.redis_urls import in_mesh
from servers.hostnet.wireguard.base import WireGuardError
from servers.hostnet.wireguard.choose import choose

from .place import Place

REDIS_WITHIN = 3.0  # seconds


@dataclass(frozen=True, slots=True)
class Status:
    """``machines``: by host id, seconds since it last shook hands; None: never. ``round_trips``: likewise, seconds
    until it answered just now; None: it did not. ``heartbeat``: whether the worker's is in Redis. ``version``: that of
    the state which it has taken; 0: none yet.
    """

    id: str
    name: str
    control: str
    mesh: str
    machines: dict[str, float | None]
    round_trips: dict[str, float | None]
    redis: str
    heartbeat: bool
    version: int

    @property
    def green(self) -> bool:
        return self.heartbeat and self.version > 0

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "green": self.green}, indent=2)


def look(place: Place, *, ask_machines: bool = False) -> Status:
    """``ask_machines``: find out ``round_trips`` as well. Raise ``HostError`` where this machine has not joined."""
    environment, about = place.environment(), place.about()
    mesh = memory.load(memory.path_in(place.directory))
    said, beat = _redis(environment, mesh)
    return Status(
        id=environment["HOST_ID"],
        name=str(about.get("name", "")),
        control=str(about.get("address", "")),
        mesh=_interface(),
        machines=_machines(environment.get("HOSTNET_BACKEND", "auto"), mesh),
        round_trips=_round_trips(mesh) if mesh is not None and ask_machines else {},
        redis=said,
        heartbeat=beat is not None,
        version=int((beat or {}).get("version", 0)),
    )


def _interface() -> str:
    """Its address, or what is wrong with it."""
    try:
        found = link.read(MESH_INTERFACE, with_routes=False)
    except LinkError as error:
        return str(error)
    if found is None:
        return "down"
    return ", ".join(sorted(found.addresses)) if found.up else "down"


def _machines(backend: str, mesh: Mesh | None) -> dict[str, float | None]:
    try:
        peers = choose(backend).get(MESH_INTERFACE).peers
    except WireGuardError:
        peers = {}
    now, found = time.time(), {}
    for peer in mesh.peers if mesh is not None else ():
        there = peers.get(peer.public_key)
        shaken = there.last_handshake if there is not None else 0
        found[peer.host] = max(0.0, now - shaken) if shaken else None
    return found


def _round_trips(mesh: Mesh) -> dict[str, float | None]:
    """By host id. One of which nothing can be found out from here is not in it."""
    numbers, found = itertools.count(1), dict[str, float | None]()
    with contextlib.closing(Sockets()) as sockets:
        # While the mesh's network is changed a machine may answer at its other address alone.
        for turn in range(max((len(peer.addresses) for peer in mesh.peers), default=0)):
            silent = {peer.host: turn for peer in mesh.peers}
            whom = {host: each for host, each in targets(mesh, silent).items() if found.get(host) is None}
            found |= ask(sockets, whom, numbers, LIMIT, steady)
    return found


def _redis(environment: dict[str, str], mesh: Mesh | None) -> tuple[str, dict[str, Any] | None]:
    """In words, whether it is reached; and the heartbeat of this machine's worker there."""
    url = in_mesh(environment["HOST_REDIS_URL"], mesh)
    try:
        with redis_connections.client(url, socket_timeout=REDIS_WITHIN, socket_connect_timeout=REDIS_WITHIN) as client:
            text: Any = client.get(f"host.{environment['HOST_ID']}:alive")
    except redis.AuthenticationError:
        return "it does not know this machine any more: was the host removed in the admin?", None
    except redis.RedisError as error:
        return f"not reached ({type(error).__name__})", None
    return "reached", json.loads(text) if text else None
