"""The mesh on this machine: one WireGuard interface to all other machines, kept as it is desired.

It is a follower: tunnels of clients never wait for it. Unlike them it is there before any message has come, from a
file, since the messages come through it; and a thread of its own keeps it up and its peers found meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from servers.hostnet.clock import steady
from servers.hostnet.netlink.links import LinkError, Links
from servers.hostnet.state import (
    MESH_INTERFACE,
    Code,
    HostCondition,
    HostState,
    Interface,
    Mesh,
    Peer,
    Remote,
)
from servers.hostnet.subsystem import Stage
from servers.hostnet.wireguard import keys
from servers.hostnet.wireguard.base import Backend, Device, PeerChange, WireGuardError
from servers.hostnet.wireguard.fields import link_index

from . import link, memory, routes, ways
from .endpoints import Endpoints
from .membership import Membership
from .plan import Observed, Steps, plan, take_off

log = logging.getLogger("hostnet.mesh")

OVERHEAD = 80  # bytes that WireGuard adds to a packet, at most: over IPv6
SMALLEST_MTU = 1280  # IPv6 needs it
LOOK_EVERY = 5.0  # seconds
# Seconds between two readings of all that lies behind the other machines, for what others changed.
READ_WHOLE_EVERY = 30.0
ERRORS = (WireGuardError, LinkError, OSError)


class MeshNetwork:
    """A ``Subsystem``. Threads may share it. ``moved`` is called when Redis is elsewhere than it was at the start."""

    stage = Stage.FOLLOWER

    def __init__(
        self,
        backend: Backend,
        links: Links,
        var: Path,
        moved: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = steady,
        endpoints: Endpoints | None = None,
    ) -> None:
        self._backend, self._links = backend, links
        self._file, self._key_file = memory.path_in(var), memory.key_in(var)
        self._moved, self._clock = moved, clock
        self._endpoints = endpoints or Endpoints()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._members = Membership()
        self._redis: tuple[str, ...] | None = None  # where it was at the start; None: not in the mesh
        self._trouble = ""
        self._settled = False  # whether the last apply succeeded: only then is a difference somebody else's doing
        self._mtu = 0
        self._read_whole = float("-inf")
        self._device: Device | None = None  # as it was last read

    @property
    def public_key(self) -> str:
        """This machine's in the mesh; made at the first call. Raise ``WireGuardError``."""
        return keys.public_of(keys.load_or_make(self._key_file))

    def start(self) -> None:
        """Bring up what was last known, unless an earlier run left it up, and go on in a thread."""
        if (mesh := memory.load(self._file)) is not None:
            with self._lock:
                self._members.remember(mesh)
                self._redis = mesh.redis
        threading.Thread(target=self._run, name="mesh", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                self.step()
            except ERRORS as error:
                log.warning("%s", error)
            except Exception:
                log.exception("the mesh could not be looked after")
            self._wake.wait(LOOK_EVERY)

    def step(self) -> None:
        """Make the interface where there is none, and look for machines that are not heard."""
        with self._lock:
            if self._members.mesh is None:
                self._device = None
                return
            if not link_index(MESH_INTERFACE):
                self._make_so()
            device = self._device = self._backend.get(MESH_INTERFACE)
            lost = self._endpoints.lost(device, self._members.peers.values(), self._clock())
        changes = self._endpoints.find(lost)
        with self._lock:
            known = {peer.public_key for peer in self._members.peers.values()}
            if changes := [change for change in changes if change.public_key in known]:
                self._backend.set(MESH_INTERFACE, peers=changes)

    def seen(self) -> tuple[Mesh | None, Device | None]:
        """The mesh as it is desired, and the device as it was last read. Waits for nothing that is being applied."""
        return self._members.mesh, self._device

    # What is desired

    def apply(self, state: HostState) -> None:
        with self._lock:
            self._members.take_full(state.mesh, state.remotes, state.interfaces)
            self._make_so()
            elsewhere = state.mesh is not None and self._redis is not None and self._redis != state.mesh.redis
        if elsewhere:
            log.warning("Redis is at another address of the mesh now")
            self._moved()
        self._wake.set()

    def change(self, interface: Interface, gone: Sequence[Peer], new: Sequence[Peer]) -> None:
        """Whoever has come to this machine is behind no other one: of that ``change_remotes`` hears."""

    def change_remotes(self, server: str, gone: Sequence[Remote], new: Sequence[Remote]) -> None:
        """It costs what changes, however much lies behind the other machines."""
        with self._lock:
            changed = self._members.change(gone, new)
            if not changed:
                return
            try:
                self._push(changed)
            except ERRORS as error:
                log.error("moving clients: %s", error)
                self._settled = False  # the next full state makes up for it

    def _push(self, networks: Sequence[str]) -> None:
        owners, peers = self._members.owners, self._members.peers
        by_host: dict[str, list[str]] = {}
        for network in networks:
            by_host.setdefault(owners.get(network, ""), []).append(network)
        nowhere = by_host.pop("", [])
        changes = [PeerChange(peers[host].public_key, tuple(each), add=True) for host, each in sorted(by_host.items())]
        self._backend.set(MESH_INTERFACE, peers=[*changes, *(take_off(nowhere) if nowhere else ())])
        elsewhere = [network for network in networks if network in owners]
        routes.change(link_index(MESH_INTERFACE), elsewhere, nowhere)

    def _make_so(self) -> None:
        """Never raises: what fails is a condition, and tried again with the next state."""
        self._settled = False
        try:
            if self._members.mesh is None:
                self._take_down()
            else:
                self._bring(self._members.mesh)
        except ERRORS as error:
            log.error("the mesh: %s", error)
            self._trouble = str(error)
        else:
            self._trouble, self._settled = "", True

    def _take_down(self) -> None:
        if link_index(MESH_INTERFACE):
            self._backend.delete(MESH_INTERFACE)
            self._links.delete(MESH_INTERFACE)
        routes.forget_our_table()
        ways.forget()
        memory.forget(self._file)

    def _bring(self, mesh: Mesh) -> None:
        self._mtu = mesh.mtu or max(SMALLEST_MTU, self._links.observe({}).outer_mtu - OVERHEAD)
        private = keys.load_or_make(self._key_file)
        steps = self._plan(self._members)
        self._execute(steps, mesh, private)
        self._read_whole = self._clock()
        memory.save(self._file, mesh)

    def _plan(self, members: Membership) -> Steps:
        assert members.mesh is not None  # noqa: S101 (whoever calls has looked)
        return plan(
            members.mesh,
            self.public_key,
            members.peers,
            members.allowed_ips(),
            self._mtu,
            self._look(),
            members.ways,
        )

    def _look(self) -> Observed:
        there = MESH_INTERFACE in self._backend.list()
        device = self._backend.get(MESH_INTERFACE) if there else None
        return Observed(device, link.read(MESH_INTERFACE), routes.is_asked(), ways.read(link_index(MESH_INTERFACE)))

    def _execute(self, steps: Steps, mesh: Mesh, private: bytes) -> None:
        if steps.create:
            self._backend.create(MESH_INTERFACE)
        if steps.device:
            self._backend.set(MESH_INTERFACE, private_key=private, port=mesh.port)
        for address in steps.add_addresses:
            self._links.add_address(MESH_INTERFACE, address)
        if steps.mtu:
            self._links.bring_up(MESH_INTERFACE, steps.mtu)
        if steps.peers:
            self._backend.set(MESH_INTERFACE, peers=steps.peers)
        if steps.add_routes or steps.remove_routes:
            routes.change(link_index(MESH_INTERFACE), steps.add_routes, steps.remove_routes)
        if steps.ask:
            routes.ask_our_table()
        if steps.ways:
            ways.make_so(MESH_INTERFACE, link_index(MESH_INTERFACE), self._members.ways)
        for address in steps.remove_addresses:
            self._links.remove_address(MESH_INTERFACE, address)

    # In words

    def preview(self, state: HostState) -> list[str]:
        members = Membership()
        members.take_full(state.mesh, state.remotes, state.interfaces)
        if members.mesh is None:
            return ["take the mesh down"] if link_index(MESH_INTERFACE) else []
        try:
            return self._in_words(self._plan(members))
        except ERRORS as error:
            return [f"the mesh cannot be read: {error}"]

    def drift(self) -> list[str]:
        """Looked at often, so what lies behind the other machines is read only now and then."""
        with self._lock:
            if self._members.mesh is None or not self._settled:
                return []
            try:
                if self._clock() - self._read_whole >= READ_WHOLE_EVERY:
                    self._read_whole = self._clock()
                    return self._in_words(self._plan(self._members))
                seen = link.read(MESH_INTERFACE, with_routes=False)
                lost = seen is None or not seen.up or not {*self._members.mesh.addresses} <= seen.addresses
                return self._in_words(self._plan(self._members)) if lost or not self._asked() else []
            except ERRORS as error:
                return [f"{MESH_INTERFACE}: {error}"]

    def _asked(self) -> bool:
        """Whether the kernel asks our tables."""
        there = ways.read(link_index(MESH_INTERFACE))
        return routes.is_asked() and there == {name: {*networks} for name, networks in self._members.ways.items()}

    @staticmethod
    def _in_words(steps: Steps) -> list[str]:
        return [f"{MESH_INTERFACE}: {words}" for words in steps.words]

    def conditions(self) -> list[HostCondition]:
        return [HostCondition.of(Code.MESH_FAILED, f"The mesh: {self._trouble}")] if self._trouble else []


def cleanup(backend: Backend, links: Links) -> None:
    """Remove the interface and what has its routes asked, whoever left them. Raise one of ``ERRORS``."""
    if link_index(MESH_INTERFACE):
        backend.delete(MESH_INTERFACE)
        links.delete(MESH_INTERFACE)
    routes.forget_our_table()
    ways.forget()
