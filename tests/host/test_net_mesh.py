"""The mesh on a host, with packets: another machine by WireGuard's own tools, and clients that are on it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from servers.hostnet.agent.decoding import ADD_REMOTES, REMOVE_REMOTES
from servers.hostnet.mesh import memory
from servers.hostnet.state import AddRemotes, Mesh, MeshPeer, Remote, RemoveRemotes, to_json
from servers.hostnet.wireguard import keys
from tests.host.conftest import ONE, World
from tests.lab import NEVER, ONE_TRY, Echo, KeyPair, Machine, Tunnel, until

pytestmark = pytest.mark.host

HERE, THERE = "fd5c::1", "fd5c::2"
REMOTE = "10.9.0.77"
PORT, SERVED = 51800, 7100
TABLE = "51800"
MANY = [f"10.{100 + (n >> 16)}.{n >> 8 & 255}.{n & 255}/32" for n in range(10_000)]


@dataclass
class Far:
    """The other machine; a client with the address ``REMOTE`` is on it, as it were."""

    machine: Machine
    tunnel: Tunnel
    world: World

    version: int = 0
    number: int = 0
    held: dict[str, Remote] = field(default_factory=dict)  # by address or network

    def mesh(self) -> Mesh:
        peer = MeshPeer("far", self.tunnel.keys.public, (f"{self.machine.address}:{PORT}",), (f"{THERE}/128",))
        return Mesh((f"{HERE}/128",), PORT, 0, (peer,), (SERVED,))

    def tell(self, *networks: str) -> dict[str, object]:
        """A full state in which clients with just these addresses and networks are on the other machine."""
        self.held = {each: self.held.get(each) or self._new(each) for each in networks}
        self.world.mesh, self.world.remotes = self.mesh(), tuple(self.held.values())
        self.world.others = (("far", self.version),)
        return self.world.send_full()

    def _new(self, network: str) -> Remote:
        self.version += 1
        self.number += 1
        return Remote(f"far{self.number}", self.version, self.number, "one", "far", (network,))

    def add(self, network: str) -> Remote:
        """A client comes there."""
        remote = self.held[network] = self._new(network)
        self.send(remote)
        return remote

    def send(self, remote: Remote) -> None:
        self.world.control.send_raw(ADD_REMOTES, to_json(AddRemotes((remote,))))

    def remove(self, network: str) -> None:
        """The client leaves."""
        message = RemoveRemotes((self.held.pop(network).connection,))
        self.world.control.send_raw(REMOVE_REMOTES, to_json(message))


@pytest.fixture(scope="module")
def far(world: World) -> Iterator[Far]:
    machine = world.lab.add_host()
    tunnel = Tunnel(machine, KeyPair.make(), [f"{THERE}/128", f"{REMOTE}/32"], name="wgfar")
    machine.run("wg", "set", "wgfar", "listen-port", str(PORT))
    public = keys.public_of(keys.load_or_make(memory.key_in(world.directory / "var")))
    tunnel.connect(public, f"{world.host.address}:{PORT}", [f"{HERE}/128", "10.9.0.0/24"])
    far = Far(machine, tunnel, world)
    far.tell()
    yield far
    world.mesh, world.remotes, world.others = None, (), ()
    world.send_full()
    assert "wgm0" not in world.host.ip("link")
    assert TABLE not in world.host.ip("rule") + world.host.ip("-6", "rule")


@pytest.fixture(scope="module")
def alice(world: World, far: Far) -> Machine:
    """A client on this host, whose server lets clients reach each other."""
    world.interfaces["one"] = dataclasses.replace(ONE, inter_client=True)
    world.send_full()
    machine = world.lab.add_client()
    world.connect(machine, "one", "alice", "10.9.0.5", routes=["10.9.0.0/24", "10.50.0.0/24"])
    assert machine.pings("10.9.0.1")
    return machine


def behind(world: World) -> set[str]:
    """What WireGuard has behind the other machine, once the kernel routes the same into the mesh."""

    def agreed() -> list[set[str]]:
        allowed = {ip for ips in world.shown("wgm0", "allowed-ips").values() for ip in ips.split()}
        return [allowed] if allowed == routes(world, "-4") | routes(world, "-6") else []

    return until(agreed)[0]


def routes(world: World, family: str) -> set[str]:
    lines = world.host.run("ip", family, "route", "show", "table", TABLE, check=False).stdout.splitlines()
    return {line.split()[0] + ("" if "/" in line.split()[0] else {"-4": "/32", "-6": "/128"}[family]) for line in lines}


def test_other_machine_reaches_what_is_served_and_nothing_else(world: World, far: Far) -> None:
    assert far.machine.pings(HERE)
    assert world.host.pings(THERE)
    stranger = world.lab.add_client()
    stranger.ip("route", "add", f"{HERE}/128", "via", world.host.address6)
    with Echo(world.host, "::", SERVED), Echo(world.host, "::", SERVED + 1), Echo(far.machine, "::", 7000):
        assert far.machine.ask_tcp(HERE, SERVED) == f"{THERE} hello".encode()
        assert far.machine.ask_tcp(HERE, SERVED + 1, timeout=NEVER) is None
        assert world.host.ask_tcp(THERE, 7000) == f"{HERE} hello".encode()
        # Neither from a neighbour outside of the mesh, though the kernel would answer.
        assert stranger.ask_tcp(HERE, SERVED, timeout=NEVER) is None
        assert not stranger.pings(HERE, timeout=NEVER)
    # Through this host to somewhere else: to nobody.
    allowed = f"{HERE}/128,10.9.0.0/24,198.51.100.254/32"
    far.machine.run("wg", "set", "wgfar", "peer", world_key(world), "allowed-ips", allowed)
    far.machine.ip("route", "replace", "198.51.100.254/32", "dev", "wgfar", "src", REMOTE)
    far.add(f"{REMOTE}/32")
    assert not far.machine.pings("198.51.100.254", timeout=NEVER)
    far.machine.ip("route", "del", "198.51.100.254/32", "dev", "wgfar")
    far.remove(f"{REMOTE}/32")


def world_key(world: World) -> str:
    return world.host.run("wg", "show", "wgm0", "public-key").stdout.strip()


def test_clients_on_two_machines_reach_each_other_where_their_server_lets_them(
    world: World, far: Far, alice: Machine
) -> None:
    with Echo(far.machine, REMOTE, 7000), Echo(alice, "10.9.0.5", 7001):
        assert alice.ask_tcp(REMOTE, 7000, timeout=NEVER) is None
        far.add(f"{REMOTE}/32")
        until(lambda: f"{REMOTE}/32" in behind(world))
        # With their own addresses, in both directions.
        assert alice.ask_tcp(REMOTE, 7000) == b"10.9.0.5 hello"
        assert far.machine.ask_tcp("10.9.0.5", 7001, source=REMOTE) == f"{REMOTE} hello".encode()
        # From an address that is nobody's of the server's it reaches no client.
        far.machine.ip("addr", "add", "10.77.7.7/32", "dev", "wgfar")
        assert far.machine.ask_tcp("10.9.0.5", 7001, timeout=NEVER, source="10.77.7.7") is None
        far.machine.ip("addr", "del", "10.77.7.7/32", "dev", "wgfar")
        far.remove(f"{REMOTE}/32")
        until(lambda: f"{REMOTE}/32" not in behind(world))
        assert alice.ask_tcp(REMOTE, 7000, timeout=NEVER) is None
        far.add(f"{REMOTE}/32")
        world.interfaces["one"] = dataclasses.replace(ONE, inter_client=False)
        far.tell(f"{REMOTE}/32")
        assert alice.ask_tcp(REMOTE, 7000, timeout=NEVER) is None
        world.interfaces["one"] = dataclasses.replace(ONE, inter_client=True)
        far.tell(f"{REMOTE}/32")
        assert alice.ask_tcp(REMOTE, 7000) is not None
    far.tell()


def test_network_behind_a_client_on_another_machine_is_reached_also_where_clients_are_kept_apart(
    world: World, far: Far, alice: Machine
) -> None:
    site, sites = "10.60.3.1", ("10.60.0.0/16", "10.60.3.0/24", "fd60::/64")
    world.interfaces["one"] = dataclasses.replace(ONE, inter_client=False, behind=sites)
    far.tell("10.60.3.0/24", f"{REMOTE}/32")
    far.machine.ip("addr", "add", f"{site}/32", "dev", "wgfar")
    alice.ip("route", "add", "10.60.0.0/16", "dev", "wgp0")
    server = world.keys["one"]
    alice.run("wg", "set", "wgp0", "peer", server, "allowed-ips", "10.9.0.0/24,10.50.0.0/24,10.60.0.0/16")
    with Echo(far.machine, site, 7000), Echo(far.machine, REMOTE, 7000), Echo(alice, "10.9.0.5", 7001):
        assert alice.ask_tcp(site, 7000) == b"10.9.0.5 hello"
        assert far.machine.ask_tcp("10.9.0.5", 7001, source=site) == f"{site} hello".encode()
        assert alice.ask_tcp(REMOTE, 7000, timeout=NEVER) is None
    far.machine.ip("addr", "del", f"{site}/32", "dev", "wgfar")
    world.interfaces["one"] = dataclasses.replace(ONE, inter_client=True)
    far.tell()


def test_old_word_never_wins_and_who_connects_here_is_nowhere_else(world: World, far: Far, alice: Machine) -> None:
    far.tell(f"{REMOTE}/32")
    late = far.add("10.9.0.78/32")
    until(lambda: "10.9.0.78/32" in behind(world))
    far.remove("10.9.0.78/32")
    far.send(late)
    far.add("10.9.0.80/32")  # which is taken after it
    until(lambda: "10.9.0.80/32" in behind(world))
    assert behind(world) == {f"{THERE}/128", f"{REMOTE}/32", "10.9.0.80/32"}
    # The same client connects here, and the word that it left there is still under way.
    peer = world.make_peer("one", "moved", f"{REMOTE}/32")
    assert world.control.add("one", peer) == "ok"
    until(lambda: f"{REMOTE}/32" not in behind(world))
    assert f"{REMOTE}/32" in world.shown("wgs1", "allowed-ips")[peer.public_key]
    # A state whose version was read before it does not bring it back there.
    stale = dataclasses.replace(world.state(), version=peer.version - 1)
    world.control.send(stale)
    far.tell()
    assert behind(world) == {f"{THERE}/128"}
    del world.peers["moved"]
    world.send_full()


def test_what_others_change_is_put_back_and_said(world: World, far: Far) -> None:
    far.tell("10.60.0.0/24", f"{REMOTE}/32")
    whole = behind(world)
    world.host.ip("rule", "del", "pref", "32700")
    assert any("routing table of the mesh" in line for line in world.drift_found("routing table of the mesh"))
    world.host.ip("link", "set", "wgm0", "down")
    until(lambda: "state UNKNOWN" in world.host.ip("link", "show", "wgm0") and behind(world) == whole)
    world.host.ip("link", "del", "wgm0")
    until(lambda: "wgm0" in world.host.ip("link") and behind(world) == whole)
    until(lambda: far.machine.pings(HERE, timeout=ONE_TRY))
    # What no event tells of is read with the states, now and then.
    world.host.run("wg", "set", "wgm0", "peer", far.tunnel.keys.public, "allowed-ips", f"{THERE}/128")
    world.host.ip("route", "del", "10.60.0.0/24", "dev", "wgm0", "table", TABLE)
    far.tell("10.60.0.0/24", f"{REMOTE}/32")
    assert behind(world) == whole
    far.tell()
    assert behind(world) == {f"{THERE}/128"}


def test_one_move_costs_the_same_however_many_lie_behind(world: World, far: Far) -> None:
    few = cost_of_moves(world, far)
    far.tell(*MANY)
    assert behind(world) == {f"{THERE}/128", *MANY}
    many = cost_of_moves(world, far)
    print(f"processor time for 100 moves: {few:.2f} s beside few, {many:.2f} s beside 10,000")
    # Each said anew for every move would be 10,000 times as much. The rest is what the worker does meanwhile.
    assert many < 4 * few + 2.0
    far.tell()
    assert behind(world) == {f"{THERE}/128"}


def cost_of_moves(world: World, far: Far) -> float:
    """Processor seconds of the worker and of WireGuard for 100 moves, each with a message of its own."""
    before = processor_time(world)
    for number in range(50):
        far.add(f"10.9.0.{100 + number}/32")
    until(lambda: "10.9.0.149/32" in world.host.run("wg", "show", "wgm0", "allowed-ips").stdout)
    for number in range(50):
        far.remove(f"10.9.0.{100 + number}/32")
    until(lambda: "10.9.0.149/32" not in world.host.run("wg", "show", "wgm0", "allowed-ips").stdout)
    return processor_time(world) - before


def processor_time(world: World) -> float:
    total = 0
    for pid in world.host.processes():
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")
