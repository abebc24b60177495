"""The host's worker as a process: what it takes, confirms and reports, and what survives its and Redis's death."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from servers.hostnet.state import AddPeer, RemovePeers, to_json
from tests.host.conftest import World
from tests.lab import HANGING, PYTHON, KeyPair, Machine, Pinger, until

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def alice(world: World) -> Machine:
    """A client with a running tunnel to server one."""
    client = world.lab.add_client()
    world.connect(client, "one", "alice", "10.9.0.11", routes=["10.9.0.0/24"])
    assert client.pings("10.9.0.1")
    return client


def stand_in_peers(world: World, count: int, network: str = "10.9") -> list[AddPeer]:
    """New connections on server one, as messages, each with a list to confirm on; nobody is behind them."""
    added = []
    for number in range(count):
        address = f"{network}.{1 + number // 250}.{1 + number % 250}/32"
        peer = world.make_peer("one", f"p{network}x{number}".replace(".", ""), address)
        added.append(AddPeer("one", peer, (), f"{world.control.prefix}:confirm:{peer.connection}"))
    return added


def test_first_full_state_makes_servers_and_keeps_keys_private(world: World) -> None:
    assert set(world.keys) == {"one", "two"}
    assert world.host.run("wg", "show", "wgs1", "public-key").stdout.strip() == world.keys["one"]
    assert world.host.run("wg", "show", "wgs2", "listen-port").stdout.strip() == "51821"
    addresses = world.host.ip("-brief", "addr", "show", "wgs1")
    assert "10.9.0.1/24" in addresses
    assert "fd01::1/64" in addresses
    assert "mtu 1420" in world.host.ip("link", "show", "wgs1")
    assert "mtu 1380" in world.host.ip("link", "show", "wgs2")
    files = list((world.directory / "var" / "keys").iterdir())
    assert {file.name for file in files} == {"one", "two"}
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    for file in files:
        assert file.read_text().strip() not in world.log.read_text()


def test_host_lives_within_its_own_redis_keys(world: World, alice: Machine) -> None:
    # Its Redis user may touch nothing else, and nothing of what it did was refused.
    assert world.control.redis.acl_log() == []
    alive = until(lambda: (beat := world.control.alive()) and beat["peers"] == 1 and beat)
    assert alive is not None
    assert (alive["boot"], alive["backend"], alive["version"]) == (world.boot, "userspace", 1)


def test_added_peer_is_confirmed_once_it_is_there(world: World, alice: Machine) -> None:
    for number in range(20):
        peer = world.make_peer("one", f"quick{number}", f"10.9.0.{100 + number}/32")
        assert world.control.add("one", peer) == "ok"
        assert world.shown("wgs1", "allowed-ips")[peer.public_key] == f"10.9.0.{100 + number}/32"
    # The same once more is confirmed again, and changes nothing.
    before = world.shown("wgs1", "allowed-ips")
    assert world.control.add("one", peer) == "ok"
    assert world.shown("wgs1", "allowed-ips") == before


def test_refusals_say_why(world: World, alice: Machine) -> None:
    peer = world.make_peer("one", "nowhere", "10.9.0.60/32")
    assert world.control.add("three", peer) == "error: no such server on this host"
    del world.peers["nowhere"]
    stale = dataclasses.replace(peer, connection="stale", version=1)
    assert world.control.add("one", stale).startswith("error: older")


def test_replaced_connection_gives_its_address_to_the_new_one(world: World, alice: Machine) -> None:
    first = world.make_peer("one", "r1", "10.9.0.70/32")
    assert world.control.add("one", first) == "ok"
    second = world.make_peer("one", "r2", "10.9.0.70/32")
    assert world.control.add("one", second, replaces=("r1",)) == "ok"
    report = world.control.report("removed", reason="replaced")
    assert report["connections"] == ["r1"]
    shown = world.shown("wgs1", "allowed-ips")
    assert first.public_key not in shown
    assert shown[second.public_key] == "10.9.0.70/32"
    assert world.control.add("one", first) == "error: this connection has ended"
    del world.peers["r1"]


def test_damaged_messages_are_dropped_and_stall_nothing(world: World, alice: Machine) -> None:
    good = to_json(AddPeer("one", world.make_peer("one", "afterwards", "10.9.0.80/32")))
    damaged: list[object] = ["text", None, 7, [], {}, {**good, "peer": {"connection": "x"}}]
    queue: list[tuple[str, tuple[object, ...]]] = [("hostnet.add_peer", (bad,)) for bad in damaged]
    queue += [("hostnet.add_peer", ()), ("hostnet.add_peer", (good, good)), ("hostnet.unknown", (good,))]
    queue += [("hostnet.full_state", ({"host": "another"},)), ("hostnet.remove_peers", ({"connections": 5},))]
    # A confirmation may not be pushed to a key of somebody's choice.
    queue += [("hostnet.add_peer", ({**good, "confirm": f"{world.control.prefix}:reports"},))]
    for task, arguments in queue:
        world.control.send_raw(task, *arguments)
    assert world.control.add(*world.peers["afterwards"]) == "ok"


def test_five_hundred_additions_are_taken_in_batches(world: World, alice: Machine) -> None:
    messages = stand_in_peers(world, 500)
    for message in messages:
        world.control.send(message)
    assert {world.control.answer(message.confirm) for message in messages} == {"ok"}
    shown = world.shown("wgs1", "allowed-ips")
    assert all(shown[message.peer.public_key] == message.peer.allowed_ips[0] for message in messages)
    gone = tuple(message.peer.connection for message in messages)
    for connection in gone:
        del world.peers[connection]
    world.version += 1
    world.control.send(RemovePeers(world.version, gone))
    assert set(world.control.report("removed")["connections"]) == set(gone)
    assert not {message.peer.public_key for message in messages} & world.shown("wgs1", "allowed-ips").keys()


def test_old_full_states_and_those_for_another_run_are_ignored(world: World, alice: Machine) -> None:
    old = world.state()
    world.send_full()
    world.control.send(dataclasses.replace(old, interfaces=()))
    world.control.send(dataclasses.replace(old, version=world.version + 100, boot="another", interfaces=()))
    world.send_full()
    assert alice.pings("10.9.0.1")


def test_what_others_changed_is_repaired_and_reported(world: World, alice: Machine) -> None:
    host = world.host
    assert world.send_full()["drift"] == []
    before, stranger = world.session("alice"), KeyPair.make().public
    host.run("wg", "set", "wgs1", "peer", stranger, "allowed-ips", "10.9.0.200/32")
    host.run("wg", "set", "wgs1", "peer", world.peers["quick0"][1].public_key, "remove")
    host.run("wireguard-go", "wgs77")
    host.ip("addr", "add", "10.99.0.1/24", "dev", "wgs2")
    host.ip("link", "set", "wgs2", "mtu", "1300")
    host.run("nft", "delete", "table", "inet", "wgvpn")
    drift = "\n".join(world.drift_found("nftables table"))
    assert "wgs77: an interface nobody asked for" in drift
    assert "wgs1: peers gone: 1, added: 1" in drift
    assert "wgs2: address 10.99.0.1/24 was added" in drift
    assert "wgs2: link down, or another MTU or group" in drift
    shown = world.shown("wgs1", "allowed-ips")
    assert stranger not in shown
    assert world.peers["quick0"][1].public_key in shown
    assert "wgs77" not in host.ip("link")
    assert "10.99.0.1" not in host.ip("addr")
    assert "chain forward" in host.run("nft", "list", "table", "inet", "wgvpn").stdout
    assert world.goes_on("alice", before)  # a peer that did not change was not touched
    assert world.send_full()["drift"] == []


def test_tunnel_outlives_a_killed_worker_and_a_peer_removed_meanwhile_does_not(world: World, alice: Machine) -> None:
    before = world.session("alice")
    gone = world.peers["quick1"][1].public_key
    assert gone in world.shown("wgs1", "allowed-ips")
    with Pinger(alice, "10.9.0.1") as pinger:
        world.kill_worker()
        del world.peers["quick1"]
        world.version += 1
        world.start_worker()
        world.send_full()
    assert pinger.sent > 20
    assert pinger.lost == 0
    assert world.goes_on("alice", before)
    assert gone not in world.shown("wgs1", "allowed-ips")


def test_tunnel_outlives_redis_and_the_worker_finds_it_again(world: World, alice: Machine) -> None:
    before, boot = world.session("alice"), world.boot
    with Pinger(alice, "10.9.0.1") as pinger:
        world.redis.kill()
        until(lambda: "Redis cannot be reached" in world.log.read_text())
        world.redis.start()
        # It notices by itself that it is not known any more, and asks anew.
        world.greet()
        assert world.boot == boot
        peer = world.make_peer("one", "later", "10.9.0.90/32")
        assert world.control.add("one", peer) == "ok"
    assert pinger.sent > 20
    assert pinger.lost == 0
    assert world.goes_on("alice", before)


def test_redis_that_lost_its_memory_between_two_heartbeats_is_noticed(world: World, alice: Machine) -> None:
    until(world.control.alive)
    world.control.redis.flushall()
    assert world.control.report("hello")["boot"] == world.boot


def test_worker_that_starts_without_redis_guards_the_host_and_waits(world: World, alice: Machine) -> None:
    before = world.session("alice")
    with Pinger(alice, "10.9.0.1") as pinger:
        world.kill_worker()
        world.redis.kill()
        world.log.write_text("")
        world.launch()
        until(lambda: "Cannot connect" in world.log.read_text())
        assert "dport 9790 drop" in world.host.run("nft", "list", "table", "inet", "wgvpn").stdout
        world.redis.start()
        world.greet()
    assert pinger.lost == 0
    assert world.goes_on("alice", before)


def test_ten_thousand_peers_fit_into_memory(world: World, alice: Machine) -> None:
    before = world.session("alice")
    for number in range(10_000):
        world.make_peer("two", f"many{number}", f"10.10.{1 + number // 250}.{1 + number % 250}/32")
    for _ in range(3):
        world.send_full()
    assert world.worker is not None
    status = Path(f"/proc/{world.worker.pid}/status").read_text()
    found = {name: int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) / 1024 for name in ("VmRSS", "VmHWM")}  # type: ignore[index]
    assert len(world.shown("wgs2", "allowed-ips")) == 10_000
    assert found["VmHWM"] < 150
    assert world.goes_on("alice", before)
    for number in range(10_000):
        del world.peers[f"many{number}"]
    world.send_full()
    assert world.shown("wgs2", "allowed-ips") == {}


def test_sigterm_ends_the_worker_and_no_tunnel(world: World, alice: Machine) -> None:
    assert world.worker is not None
    with Pinger(alice, "10.9.0.1") as pinger:
        world.worker.terminate()
        assert world.worker.wait(HANGING) == 0
        world.start_worker()
    assert pinger.lost == 0


def test_cleanup_leaves_nothing_even_after_sigkill(world: World) -> None:
    world.kill_worker()
    host = world.host
    assert "wgs1" in host.ip("link")
    settings = [f"{name}={value}" for name, value in world.environment().items()]
    host.run("env", *settings, PYTHON, "-m", "servers.hostnet", "--cleanup")
    assert "wgs" not in host.ip("link")
    assert "wgvpn" not in host.run("nft", "list", "tables").stdout
    assert not [pid for pid in host.processes() if b"wireguard-go" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    world.boot = ""
    world.start_worker()
    assert "wgs1" in host.ip("link")
