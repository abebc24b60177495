"""What 10,000 clients on other hosts cost this one: to know them all, against ``wg setconf`` of as many peers; and one
of them that moves from one host to another, against the same among 10.

Everything as the host worker does it, on real interfaces, with the routes in the kernel and the firewall's table.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.apply import configuration, setconf, timed
from bench.figures import Figure, spread
from bench.installation import say
from bench.load import WrongAnswer
from servers.hostnet.agent import decoding
from servers.hostnet.firewall.table import Firewall
from servers.hostnet.mesh import routes
from servers.hostnet.mesh.network import MeshNetwork
from servers.hostnet.netlink import conntrack
from servers.hostnet.netlink.links import Links
from servers.hostnet.reconcile.apply import Applier, Change
from servers.hostnet.reconcile.desired import Desired
from servers.hostnet.reconcile.reported import FullReport
from servers.hostnet.state import (
    MESH_INTERFACE,
    AddRemotes,
    HostState,
    Interface,
    Mesh,
    MeshPeer,
    Peer,
    Remote,
    RemoveRemotes,
    Route,
    to_json,
)
from servers.hostnet.wireguard.base import Backend
from servers.hostnet.wireguard.choose import choose
from servers.hostnet.wireguard.fields import link_index
from tests.protocol_client import new_wg_key

HOST, SERVER, INTERFACE = "bench", "server", "wgs1"
OTHERS = 19  # hosts
FEW, MANY = 10, 10_000  # clients on them
ROUNDS, MOVES = 5, 200


def measure(directory: Path) -> Iterator[Figure]:
    backend, remotes = choose("auto"), [_remote(number) for number in range(MANY)]
    file = directory / "wg.conf"
    file.write_text(configuration(tuple(_peer(remote) for remote in remotes)))
    theirs: list[float] = []
    ours: list[float] = []
    moves: dict[int, list[float]] = {FEW: [], MANY: []}  # the median of each round
    for number in range(1, ROUNDS + 1):
        theirs.append(setconf(backend, file))
        for count, seconds in moves.items():
            host = Neighbour(backend, directory / f"mesh-{number}-{count}", remotes[:count])
            if count == MANY:
                ours.append(host.took)
            seconds.append(statistics.median(host.moves()))
            host.close()
        words = ", ".join(f"{1000 * seconds[-1]:.2f} ms among {n}" for n, seconds in moves.items())
        say(f"mesh: apply {number} of {ROUNDS}: wg setconf {theirs[-1]:.2f} s, ours {ours[-1]:.2f} s; a move {words}")
    ratio = statistics.median(mine / setconfs for mine, setconfs in zip(ours, theirs, strict=True))
    note = f"s: ours {spread(ours)} for {MANY:,} clients on {OTHERS} hosts, wg setconf {spread(theirs)}; {backend.name}"
    yield Figure("mesh_to_setconf", ratio, "ratio", 1.5, at_most=True, note=note)
    ms = [spread([1000 * seconds for seconds in moves[count]]) for count in (MANY, FEW)]
    ratio = statistics.median(many / few for many, few in zip(moves[MANY], moves[FEW], strict=True))
    note = f"ms: {ms[0]} among {MANY:,} clients, {ms[1]} among {FEW}"
    yield Figure("mesh_move_10k_to_10", ratio, "ratio", 1.5, at_most=True, note=note)


class Neighbour:
    """A host without clients of its own that knows those of the others; ``took``: the seconds that it took to be told
    of them, from the message's text to the report."""

    def __init__(self, backend: Backend, var: Path, remotes: list[Remote]) -> None:
        var.mkdir()
        self._backend = backend
        self._remotes = list(remotes)
        mesh = MeshNetwork(backend, Links(), var)
        self._applier = Applier(Desired("boot"), backend, Links(), var / "keys", conntrack.flush, [Firewall(), mesh])
        self._state = _state(tuple(remotes))
        text = json.dumps(to_json(self._state))
        self.took = timed(lambda: self._full(text))
        self._must_have(remotes)

    def moves(self) -> list[float]:
        """Seconds that each takes. A client has connected on another host, so that its older connection has ended."""
        seconds = []
        for number in range(MANY, MANY + MOVES):
            before = self._remotes[number % len(self._remotes)]
            after = dataclasses.replace(
                before, connection=f"moved{number}", version=number, number=number, host=_other(number, before.host)
            )
            self._remotes[number % len(self._remotes)] = after
            changes: list[Change] = [RemoveRemotes((before.connection,)), AddRemotes((after,))]
            seconds.append(timed(partial(self._applier.changes, changes)))
        self._must_have(self._remotes)
        return seconds

    def close(self) -> None:
        self._applier.full(HostState(HOST, 1_000_000, "boot", 9790, ()))
        Firewall().remove()
        if link_index(MESH_INTERFACE):
            raise WrongAnswer("the mesh is still there")

    def _full(self, text: str) -> None:
        state = decoding.read(decoding.FULL_STATE, json.loads(text), HOST)
        assert isinstance(state, HostState)
        report = self._applier.full(state)
        if not isinstance(report, FullReport) or report.conditions or report.drift:
            raise WrongAnswer(f"the apply failed: {report}")

    def _must_have(self, remotes: list[Remote]) -> None:
        assert self._state.mesh is not None
        wanted = {peer.public_key: {*peer.addresses} for peer in self._state.mesh.peers}
        keys = {peer.host: peer.public_key for peer in self._state.mesh.peers}
        for remote in remotes:
            wanted[keys[remote.host]] |= {*remote.allowed_ips}
        peers = self._backend.get(MESH_INTERFACE).peers
        if {key: {*peer.allowed_ips} for key, peer in peers.items()} != wanted:
            raise WrongAnswer("clients are not behind their hosts")
        if routes.read(link_index(MESH_INTERFACE)) != set().union(*wanted.values()):
            raise WrongAnswer("clients are not routed into the mesh")


def _state(remotes: tuple[Remote, ...]) -> HostState:
    interface = Interface(INTERFACE, SERVER, 51820, ("10.9.0.1/16",), 0, True, 360, (Route("192.0.2.0/24", True),), ())
    peers = tuple(
        MeshPeer(f"other{n}", new_wg_key(), (f"198.51.100.{n + 1}:51819",), (f"fd5c::{n + 2:x}/128",))
        for n in range(OTHERS)
    )
    mesh = Mesh(("fd5c::1/128",), 51819, 0, peers)
    others = tuple((f"other{n}", 1) for n in range(OTHERS))
    return HostState(HOST, 1, "boot", 9790, (interface,), mesh=mesh, remotes=remotes, others=others)


def _remote(number: int) -> Remote:
    address = f"10.9.{(number + 2) >> 8}.{(number + 2) & 255}/32"
    return Remote(f"connection{number}", 1, number, SERVER, f"other{number % OTHERS}", (address,))


def _other(number: int, host: str) -> str:
    """Of the other hosts any but this one."""
    return next(name for name in (f"other{(number + n) % OTHERS}" for n in range(2)) if name != host)


def _peer(remote: Remote) -> Peer:
    return Peer(remote.connection, 1, new_wg_key(), remote.allowed_ips)
