"""What somebody deletes on a host comes back, at once or with the next full state, and is reported; whoever is
connected meanwhile notices nothing. And what follows a client, its networks and ports, follows it in both directions:
real packets, a real worker."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest

from servers.hostnet.state import Forward, RemovePeers
from tests.host.conftest import Session, World
from tests.lab import NEVER, Echo, KeyPair, Machine, Pinger, Tunnel

pytestmark = pytest.mark.host

SITE, SITE6 = "192.168.7.0/24", "fd77::/48"
BEHIND, BEHIND6 = "192.168.7.1", "fd77::1"
SERVICE, PUBLIC = 7000, 8080


@dataclass
class Scene:
    """Alice is on server one, Charlie on server two. The gates are on server one and stand before the same network."""

    world: World
    alice: Machine
    charlie: Machine
    gate: Machine
    spare: Machine

    def sessions(self) -> dict[str, Session]:
        """Alice's and Charlie's."""
        return {connection: self.world.session(connection) for connection in ("alice", "charlie")}

    def same_sessions(self, before: dict[str, Session]) -> bool:
        return all(self.world.goes_on(connection, session) for connection, session in before.items())

    def site_is_reached(self) -> bool:
        return self.alice.pings(BEHIND) and self.alice.pings(BEHIND6)


def make_gate(world: World, name: str, address: str, address6: str, networks: tuple[str, ...]) -> Machine:
    """A client with the network behind it (on itself, which is as good), and with a forwarded port."""
    machine, keys = world.lab.add_client(), KeyPair.make()
    for behind in (BEHIND, BEHIND6):
        machine.ip("addr", "add", behind, "dev", "lo")
    peer = world.make_peer("one", name, f"{address}/32", f"{address6}/128", keys=keys)
    forwards = (Forward("tcp", PUBLIC, PUBLIC, SERVICE), Forward("udp", PUBLIC, PUBLIC, SERVICE)) if networks else ()
    peer = dataclasses.replace(peer, networks=networks, forwards=forwards)
    world.peers[name] = ("one", peer)
    assert world.control.add("one", peer) == "ok", world.log.read_text()[-2000:]
    tunnel = Tunnel(machine, keys, [f"{address}/24", f"{address6}/64"])
    everything = ["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"]
    machine.ip("route", "add", f"{world.host.address}/32", "dev", machine.interface)
    tunnel.connect(world.keys["one"], f"{world.host.address}:{world.interfaces['one'].port}", everything)
    assert machine.pings("10.9.0.1")
    return machine


@pytest.fixture(scope="module")
def scene(world: World) -> Scene:
    alice, charlie = world.lab.add_client(), world.lab.add_client()
    world.connect(alice, "one", "alice", "10.9.0.11", "fd01::11", routes=["10.9.0.0/24", "fd01::/64", SITE, SITE6])
    world.connect(charlie, "two", "charlie", "10.10.0.13", routes=["10.10.0.0/24"])
    gate = make_gate(world, "gate", "10.9.0.20", "fd01::20", (SITE, SITE6))
    spare = make_gate(world, "spare", "10.9.0.21", "fd01::21", ())
    found = Scene(world, alice, charlie, gate, spare)
    assert found.site_is_reached()
    assert charlie.pings("10.10.0.1")
    return found


# What follows a client


def test_networks_of_a_client_are_routed_at_once_by_the_host_in_both_families(scene: Scene) -> None:
    host = scene.world.host
    assert f"{SITE} dev wgs1" in host.ip("route")
    assert f"{SITE6} dev wgs1" in host.ip("-6", "route")
    assert host.pings(BEHIND)
    assert host.pings(BEHIND6)
    with Echo(scene.gate, BEHIND, SERVICE), Echo(scene.gate, BEHIND6, SERVICE):
        assert scene.alice.ask_tcp(BEHIND, SERVICE) == b"10.9.0.11 hello"
        assert scene.alice.ask_tcp(BEHIND6, SERVICE) == b"fd01::11 hello"
    scene.charlie.ip("route", "add", SITE, "dev", "wgp0")
    assert not scene.charlie.pings(BEHIND, NEVER)  # another server's


def test_network_passes_to_the_standby_in_one_state_and_nobody_elses_session_ends(scene: Scene) -> None:
    world = scene.world
    before = dict(world.peers)
    sessions = scene.sessions()
    routes = world.host.ip("route"), world.host.ip("-6", "route")
    with Pinger(scene.alice, "10.9.0.1") as alice:
        for owner, other in (("spare", "gate"), ("gate", "spare")) * 10:
            for name, networks in ((owner, (SITE, SITE6)), (other, ())):
                world.peers[name] = ("one", dataclasses.replace(before[name][1], networks=networks))
            assert world.send_full()["drift"] == []
            taker: Machine = getattr(scene, owner)
            with Echo(taker, BEHIND, SERVICE), Echo(taker, BEHIND6, SERVICE):
                assert scene.alice.ask_tcp(BEHIND, SERVICE) == b"10.9.0.11 hello"
                assert scene.alice.ask_tcp(BEHIND6, SERVICE) == b"fd01::11 hello"
    assert alice.lost == 0
    assert scene.same_sessions(sessions)
    assert (world.host.ip("route"), world.host.ip("-6", "route")) == routes
    world.peers.update(before)


def test_network_that_the_host_has_itself_stays_the_hosts(scene: Scene) -> None:
    world, host = scene.world, scene.world.host
    lan = world.lab.add_lan(host, 60)
    before = world.peers["spare"]
    thief = dataclasses.replace(before[1], networks=("10.60.0.0/24", "2001:db8:60::/64", "198.51.100.128/25"))
    world.peers["spare"] = ("one", thief)
    world.version += 1
    world.control.send(world.state())
    report = world.control.report("applied", version=world.version)
    for network, words in (
        ("10.60.0.0/24", "10.60.0.0/24 on lan60"),
        ("2001:db8:60::/64", "2001:db8:60::/64 on lan60"),
        ("198.51.100.128/25", "198.51.100.0/24 on wan"),
    ):
        said = f"wgs1: {network} is not routed to its client: the host itself has {words}"
        assert {"code": "route_refused", "severity": "warning", "text": said} in report["conditions"]
        assert f"{network} dev wgs1" not in host.ip("route") + host.ip("-6", "route")
    assert host.pings(lan.address)
    assert host.pings(lan.address6)
    assert scene.site_is_reached()  # all else is as it should be
    world.peers["spare"] = before
    assert world.send_full()["drift"] == []


# What others delete


@dataclass(frozen=True, slots=True)
class Damage:
    """``command`` is run on the host; ``words`` is how it is reported. Where it ends ``sessions``, those of server one
    begin anew."""

    command: str
    words: str
    sessions: bool = False


DAMAGES = {
    "the table": Damage("nft delete table inet wgvpn", "nftables table"),
    "a chain's rules": Damage("nft flush chain inet wgvpn forward", "nftables table"),
    "a forward": Damage(f"nft delete element inet wgvpn forwards4 {{ tcp . {PUBLIC} }}", "nftables table"),
    "a forward, IPv6": Damage(f"nft delete element inet wgvpn forwards6 {{ tcp . {PUBLIC} }}", "nftables table"),
    "a set": Damage("nft flush set inet wgvpn targets4", "nftables table"),
    "a route": Damage(f"ip route del {SITE}", f"wgs1: the route to {SITE} was gone"),
    "a route, IPv6": Damage(f"ip -6 route del {SITE6}", f"wgs1: the route to {SITE6} was gone"),
    "an address": Damage("ip addr del 10.9.0.1/24 dev wgs1", "wgs1: address 10.9.0.1/24 was gone"),
    "an address, IPv6": Damage("ip addr del fd01::1/64 dev wgs1", "wgs1: address fd01::1/64 was gone"),
    "the link's state": Damage("ip link set wgs1 down", "wgs1: link down, or another MTU or group", sessions=True),
    "a peer": Damage("wg set wgs1 peer GATE remove", "wgs1: peers gone: 1"),
    "a network of a peer": Damage("wg set wgs1 peer GATE allowed-ips 10.9.0.20/32", "wgs1: peers altered: 1"),
}


def listing(world: World) -> dict[str, str]:
    """All of the host's that is ours, as its own tools show it. Elements of a set have no order, and link-local
    addresses are the kernel's: a link that comes up again gets another one."""
    host = world.host
    table = host.run("nft", "--stateless", "list", "table", "inet", "wgvpn", check=False).stdout
    links = [line.split() for line in host.ip("-brief", "addr").splitlines() if line.startswith("wgs")]
    return {
        "table": "\n".join(sorted(" ".join(table.replace(",", " ").replace("{", " ").split()).split())),
        "routes": "\n".join(sorted(line for line in host.ip("route").splitlines() if "wgs" in line)),
        "routes6": "\n".join(sorted(line for line in host.ip("-6", "route").splitlines() if "proto 158" in line)),
        "addresses": "\n".join(
            sorted(host_part for line in links for host_part in line if not host_part.startswith("fe80:"))
        ),
        "peers": str({k: sorted(v.split()) for k, v in sorted(world.shown("wgs1", "allowed-ips").items())}),
    }


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_somebody_deletes_is_back_and_reported_and_nobody_else_notices(scene: Scene, damage: Damage) -> None:
    world = scene.world
    assert world.send_full()["drift"] == []
    whole = listing(world)
    sessions = scene.sessions()
    with Pinger(scene.charlie, "10.10.0.1") as charlie:
        world.host.run("sh", "-c", damage.command.replace("GATE", world.peers["gate"][1].public_key))
        world.drift_found(damage.words)
        back = listing(world)
        assert back == whole
    assert charlie.lost == 0
    if damage.sessions:
        del sessions["alice"]
    assert scene.same_sessions(sessions)
    assert scene.alice.pings("10.9.0.1")
    assert scene.alice.pings("fd01::1")
    assert world.send_full()["drift"] == []


def test_whole_interface_comes_back_with_all_that_was_on_it(scene: Scene) -> None:
    world = scene.world
    assert world.send_full()["drift"] == []
    whole, sessions = listing(world), scene.sessions()
    with Pinger(scene.charlie, "10.10.0.1") as charlie:
        world.host.ip("link", "del", "wgs1")
        world.drift_found("wgs1: the interface was gone")
        back = listing(world)
        assert back == whole
    assert charlie.lost == 0
    assert scene.same_sessions({"charlie": sessions["charlie"]})
    # Its clients find it again by themselves, with the handshake that follows 15 s without an answer.
    assert scene.alice.pings("10.9.0.1")
    assert scene.gate.pings("10.9.0.1")
    assert scene.site_is_reached()
    assert world.send_full()["drift"] == []


def test_mtu_of_the_way_out_is_followed(scene: Scene) -> None:
    world, host = scene.world, scene.world.host
    host.ip("link", "set", "wan", "mtu", "1400")
    try:
        assert world.send_full()["drift"] == []
        assert "mtu 1320" in host.ip("link", "show", "wgs1")
        assert "mtu 1380" in host.ip("link", "show", "wgs2")  # its own
    finally:
        host.ip("link", "set", "wan", "mtu", "1500")
    assert world.send_full()["drift"] == []
    assert "mtu 1420" in host.ip("link", "show", "wgs1")


# What would be done


def test_plan_is_shown_and_not_carried_out(scene: Scene) -> None:
    world = scene.world
    assert world.send_full()["drift"] == []
    assert world.ask_plan(world.state()) == {"lines": []}
    # What nobody sees happen, so that it stays so until the next full state.
    world.host.run("wg", "set", "wgs1", "peer", world.peers["spare"][1].public_key, "remove")
    world.host.ip("addr", "add", "10.99.0.1/24", "dev", "wgs1")
    broken = listing(world)
    expected = {"lines": ["wgs1: peers to add: 1", "wgs1: remove address 10.99.0.1/24"]}
    assert world.ask_plan(world.state()) == expected
    # Also a state that would take everything away changes nothing, now or later.
    nothing = dataclasses.replace(world.state(), version=world.version + 100, interfaces=())
    shown = world.ask_plan(nothing)["lines"]
    assert "wgs1: delete the interface" in shown
    assert "wgs2: delete the interface" in shown
    assert listing(world) == broken
    assert "ask again" in str(world.ask_plan(dataclasses.replace(world.state(), boot="another"))["error"])
    assert "ask again" in str(world.ask_plan(dataclasses.replace(world.state(), version=1))["error"])
    assert world.send_full()["drift"] == ["wgs1: peers gone: 1", "wgs1: address 10.99.0.1/24 was added"]
    assert scene.site_is_reached()


# Last, since the gate goes


def exchange(scene: Scene, port: int, data: bytes) -> bytes | None:
    return scene.world.lab.internet.ask_udp(scene.world.host.address, port, data)


def test_connections_that_concerned_a_client_are_forgotten_with_it_and_no_others(scene: Scene) -> None:
    world, host = scene.world, scene.world.host
    with Echo(scene.gate, "10.9.0.20", SERVICE), Echo(scene.gate, BEHIND, SERVICE), Echo(scene.gate, BEHIND6, SERVICE):
        assert exchange(scene, PUBLIC, b"one") is not None
        assert scene.alice.ask_udp(BEHIND, SERVICE) == b"10.9.0.11 hello"
        assert scene.alice.ask_udp(BEHIND6, SERVICE) == b"fd01::11 hello"
        assert scene.alice.pings("10.9.0.1")

        def tracked() -> str:
            return host.run("conntrack", "-L").stdout + host.run("conntrack", "-L", "-f", "ipv6").stdout

        for name in (f"dport={PUBLIC}", f"dst={BEHIND} ", "src=10.9.0.20 ", "dst=fd77::1 ", "src=10.9.0.11 "):
            assert name in tracked(), tracked()
        del world.peers["gate"]
        world.version += 1
        world.control.send(RemovePeers(world.version, ("gate",)))
        assert world.control.report("removed")["connections"] == ["gate"]
        left = tracked()
        for name in (f"dport={PUBLIC}", BEHIND, "10.9.0.20", "fd77::1"):
            assert name not in left
        assert "src=10.9.0.11 " in left  # to the gateway
    assert "wgs1" not in host.ip("route", "get", BEHIND)
    assert SITE6 not in host.ip("-6", "route")
    assert world.send_full()["drift"] == []
