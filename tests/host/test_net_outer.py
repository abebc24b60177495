"""WireGuard's own packets go around the tunnels, also to a client whose public address is in a network behind another
client. Real packets, a real worker."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest

from servers.hostnet.outer.detour import Detour
from tests.host.conftest import ONE, World
from tests.lab import PYTHON, KeyPair, Lab, Machine, Tunnel, until
from tests.servers.hostnet.fakes import state_of

pytestmark = pytest.mark.host

SITE, SITE6 = "203.0.113.0/24", "2001:db8:f::/64"
# Where Alice comes from, as the host sees it.
PUBLIC, PUBLIC6 = "203.0.113.11", "2001:db8:f::11"


@dataclass
class Scene:
    """Behind Gate is the network that Alice, on ``alice``, comes from. Both are on server one."""

    world: World
    alice: Machine
    tunnel: Tunnel

    def alice_comes_from(self, address: str) -> None:
        """Her next packets are from there; a handshake that goes through shows that the answers reach her."""
        host = self.world.host
        six = ":" in address
        to = f"{host.address6}/128" if six else f"{host.address}/32"
        self.alice.ip("route", "replace", to, "dev", self.alice.interface, "src", address)
        endpoint = f"[{host.address6}]:51820" if six else f"{host.address}:51820"
        self.tunnel.connect(self.world.keys["one"], endpoint, ["10.9.0.0/24"])

    def reached(self) -> bool:
        return self.alice.pings("10.9.0.1")


@pytest.fixture(scope="module")
def scene(world: World) -> Scene:
    internet, alice, gate = world.lab.internet, world.lab.add_client(), world.lab.add_client()
    internet.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    alice.ip("addr", "add", f"{PUBLIC}/32", "dev", alice.interface)
    alice.ip("addr", "add", f"{PUBLIC6}/128", "dev", alice.interface, "nodad")
    internet.ip("route", "add", f"{PUBLIC}/32", "via", alice.address)
    internet.ip("-6", "route", "add", f"{PUBLIC6}/128", "via", alice.address6)
    keys = {name: KeyPair.make() for name in ("alice", "gate")}
    one = world.interfaces["one"]
    world.interfaces["one"] = dataclasses.replace(one, behind=(SITE, SITE6))
    world.send_full()
    for name, number in (("gate", 20), ("alice", 11)):
        peer = world.make_peer("one", name, f"10.9.0.{number}/32", f"fd01::{number}/128", keys=keys[name])
        peer = dataclasses.replace(peer, networks=(SITE, SITE6) if name == "gate" else ())
        world.peers[name] = ("one", peer)
        assert world.control.add("one", peer) == "ok", world.log.read_text()[-2000:]
    Tunnel(gate, keys["gate"], ["10.9.0.20/24"], name="wgp1").connect(
        world.keys["one"], f"{world.host.address}:51820", ["10.9.0.0/24"]
    )
    tunnel = Tunnel(alice, keys["alice"], ["10.9.0.11/24"])
    assert until(lambda: gate.pings("10.9.0.1"))
    return Scene(world, alice, tunnel)


@pytest.mark.parametrize("address", [PUBLIC, PUBLIC6])
def test_a_client_is_reached_whose_address_is_in_a_network_behind_another(scene: Scene, address: str) -> None:
    way = scene.world.host.ip("route", "get", address)
    assert "dev wgs1" in way  # what is not WireGuard's goes into the tunnel
    scene.alice_comes_from(address)
    assert until(scene.reached)


SILENT = "table inet silent { chain output { type filter hook output priority 0; udp dport 51820 drop; }; }"
COUNTED = "table inet counted { chain input { type filter hook input priority 0; udp sport 51820 counter; }; }"


@pytest.mark.parametrize("address", [PUBLIC, PUBLIC6])
def test_what_the_host_sends_of_its_own_accord_reaches_such_a_client(scene: Scene, address: str) -> None:
    """wireguard-go answers by the link that it was asked on, whatever the routes say. So nobody asks it here: Alice is
    silent, and the host is told anew where she is."""
    host, alice, key = scene.world.host, scene.alice, scene.tunnel.keys.public
    scene.alice_comes_from(address)
    assert until(scene.reached)
    endpoint = scene.world.shown("wgs1", "endpoints")[key]
    alice.run("nft", "-f", "-", text=SILENT)
    host.run("wg", "set", "wgs1", "peer", key, "endpoint", endpoint)
    alice.run("nft", "-f", "-", text=COUNTED)

    def arrives() -> bool:
        host.run("ping", "-n", "-c1", "-W1", "10.9.0.11", check=False)
        return "counter packets 0 " not in alice.run("nft", "list", "table", "inet", "counted").stdout

    try:
        assert until(arrives)
    finally:
        alice.run("nft", "delete", "table", "inet", "silent")
        alice.run("nft", "delete", "table", "inet", "counted")


def rules(host: Machine) -> list[str]:
    found = [*host.ip("rule").splitlines(), *host.ip("-6", "rule").splitlines()]
    return [line.split(":", 1)[1].strip() for line in found if "fwmark 0x77670000" in line]


def table(host: Machine) -> list[str]:
    return [
        *host.ip("route", "show", "table", "30567").splitlines(),
        *host.ip("-6", "route", "show", "table", "30567").splitlines(),
    ]


WHOLE = [
    "from all fwmark 0x77670000 lookup main suppress_ifgroup 30567 proto 158",
    "from all fwmark 0x77670000 lookup 30567 proto 158",
]
DAMAGE = {
    "a rule": "ip rule del priority 32760",
    "the rules of IPv6": "ip -6 rule del priority 32760; ip -6 rule del priority 32761",
    "the table": "ip route flush table 30567",
    "the table of IPv6": "ip -6 route flush table 30567",
    "the mark": "wg set wgs1 fwmark 0",
    "the group": "ip link set wgs1 group 0",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_what_others_take_away_of_it_is_put_back_and_said(scene: Scene, damage: str) -> None:
    world, host = scene.world, scene.world.host
    before, way = rules(host), table(host)
    assert before == [*WHOLE, *WHOLE]
    assert any(line.startswith("default via") for line in way)
    assert [line for line in way if line.startswith("unreachable default")]
    assert not [line for line in way if "wgs" in line]
    host.run("sh", "-c", damage)
    world.drift_found("wgs1: " if "wgs1" in damage else "routing rules of WireGuard's own packets")
    assert (rules(host), table(host)) == (before, way)
    assert world.ask_plan(world.state())["lines"] == []
    assert host.run("wg", "show", "wgs1", "fwmark").stdout.strip() == "0x77670000"


def test_another_way_out_is_taken_with_the_next_state_and_is_nobodys_doing(scene: Scene) -> None:
    world, host = scene.world, scene.world.host
    host.ip("route", "replace", "default", "via", "198.51.100.11")
    assert world.send_full()["drift"] == []
    assert "default via 198.51.100.11 dev wan proto 158 onlink" in " ".join(" ".join(table(host)).split())
    host.ip("route", "replace", "default", "via", world.lab.internet.address)
    assert world.send_full()["drift"] == []


def test_a_host_without_tunnels_has_none_of_it(scene: Scene) -> None:
    """The last test of this scene: nobody is connected any more."""
    world, host = scene.world, scene.world.host
    world.interfaces.clear()
    world.peers.clear()
    world.send_full()
    assert (rules(host), table(host)) == ([], [])


def test_cleaning_up_takes_it_away_and_nothing_else() -> None:
    with Lab() as lab:
        host = lab.add_host()
        host.ip("rule", "add", "priority", "32760", "fwmark", "5", "lookup", "77")
        before = host.ip("rule")
        host.call(lambda: Detour().apply(state_of(ONE)))
        assert rules(host) == [*WHOLE, *WHOLE]
        assert table(host)
        host.run("env", "HOSTNET_BACKEND=userspace", PYTHON, "-m", "servers.hostnet", "--cleanup")
        assert (rules(host), table(host), host.ip("rule")) == ([], [], before)
