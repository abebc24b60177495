"""Machines join an installation by the real command: WireGuard between them, Redis through it, nothing beside it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import LazySettings

from core.redis_store import redis_client
from servers import joining, mesh
from servers.hostnet.state.joining import Token
from servers.models import Host, MeshNode, Server, ServerHost
from tests.host import test_end_to_end as one_host
from tests.host import test_two_hosts as two_hosts
from tests.host.joined import Installation, Joined, installation
from tests.lab import NEVER, ONE_TRY, Capture, Echo, Machine, RedisServer
from wgpeers.lifecycle import liveness

pytestmark = [pytest.mark.host, pytest.mark.django_db(transaction=True)]

UDP, MESH_PORT = 17, 51800


@pytest.fixture
def world(transactional_db: None, settings: LazySettings) -> Iterator[Installation]:
    with installation(settings) as world:
        yield world


def test_machines_join_and_reach_redis_and_each_other_through_the_mesh_alone(world: Installation) -> None:
    berlin, paris = world.add("Berlin"), world.add("Paris")
    control = world.stack.machine
    assert "wgm0" not in control.ip("link")  # nobody has joined
    world.join(berlin)
    world.join(paris)
    redis_port = 9791
    at_control = world.address(world.control)
    for each in (berlin, paris):
        # The mesh address is that of the machine's row, and every other machine answers at its own.
        status = each.status()
        assert status["green"] is True, status
        assert status["mesh"] == f"{world.address(each.host)}/128"
        assert each.machine.ask_tcp(at_control, redis_port, b"PING\r\n") == b"-NOAUTH Authentication required.\r\n"
        assert each.machine.pings(at_control)
        # On no public address, and on none of another service.
        for address in (control.address, control.address6):
            assert each.machine.ask_tcp(address, redis_port, timeout=NEVER) is None
        assert each.machine.ask_tcp(at_control, 443, timeout=NEVER) is None
    world.wait(lambda: berlin.machine.pings(world.address(paris.host), timeout=ONE_TRY))
    assert MeshNode.objects.count() == 3
    only_wireguard_is_seen(world, berlin, paris)


def only_wireguard_is_seen(world: Installation, berlin: Joined, paris: Joined) -> None:
    """While hosts beat, are told what to be, report, and ping each other."""
    addresses = {machine.address for machine in (world.stack.machine, berlin.machine, paris.machine)}
    with Capture(world.lab.internet, addresses) as seen:
        for each in (berlin, paris):
            before = Host.objects.get(pk=each.host.pk).applied_version
            each.host.refresh_from_db()
            each.host.open_foreign_firewalls = True
            each.host.save()
            world.wait(lambda each=each, before=before: Host.objects.get(pk=each.host.pk).applied_version > before)
        assert berlin.machine.pings(world.address(paris.host))
    assert len(seen.packets) > 20
    assert {(each.protocol, MESH_PORT in each.ports) for each in seen.packets} == {(UDP, True)}
    bodies = [each.body for each in seen.packets]
    assert not [body for body in bodies if b"host." in body or b"hostnet" in body or b"LPUSH" in body]


def at_both_hosts(world: Installation, other: Joined) -> two_hosts.World:
    """A server on the control node and on ``other``."""
    assert world.stack.worker is not None
    base = one_host.office(world.lab, world.stack, world.control)
    ServerHost.objects.create(server=base.server, host=other.host, priority=2)
    machines = {world.control.pk: world.stack.machine, other.host.pk: other.machine}
    made = two_hosts.World(**vars(base), second=other.host, workers={}, machines=machines)
    world.wait(lambda: not ServerHost.objects.filter(public_key="").exists())
    return made


@pytest.mark.long
def test_clients_of_a_joined_host_ping_through_the_mesh_and_reach_clients_of_another(world: Installation) -> None:
    berlin = world.add("Berlin")
    world.join(berlin)
    office = at_both_hosts(world, berlin)
    office.prefer(berlin.host)
    alice, her = office.hire("alice")
    her.up()
    world.wait(her.connected)
    office.prefer(world.control)
    bob, his = office.hire("bob")
    his.up()
    world.wait(his.connected)
    hers, his_own = office.live(alice), office.live(bob)
    assert hers is not None
    assert his_own is not None
    assert (hers.host_id, his_own.host_id) == (berlin.host.pk, world.control.pk)
    # Gateway web is on the other machine: her pings go there through the mesh, and move her deadline.
    first = liveness.deadlines([hers.public_id])[hers.public_id]
    world.wait(lambda: liveness.deadlines([hers.public_id])[hers.public_id] > first + one_host.PING_INTERVAL)
    assert office.live(alice) == hers
    with Echo(his.machine, str(his_own.address), 7000), Echo(her.machine, str(hers.address), 7000):
        world.wait(lambda: her.machine.ask_tcp(str(his_own.address), 7000, timeout=ONE_TRY) is not None)
        assert her.machine.ask_tcp(str(his_own.address), 7000) == f"{hers.address} hello".encode()
        assert his.machine.ask_tcp(str(hers.address), 7000) == f"{his_own.address} hello".encode()
    her.end()
    his.end()


@pytest.mark.long
def test_token_that_is_no_good_changes_nothing_and_is_explained(world: Installation) -> None:
    berlin, paris = world.add("Berlin"), world.add("Paris")
    name = world.stack.name

    def refused(added: Joined, *arguments: str) -> str:
        before, links = added.files(), added.machine.ip("link")
        nodes = list(MeshNode.objects.values())
        done = added.tell("join", *arguments)
        assert done.returncode == 1, done.stdout
        assert (added.files(), added.machine.ip("link"), list(MeshNode.objects.values())) == (before, links, nodes)
        return done.stdout

    stranger = Token.make(os.urandom(32)).text
    assert "did not prove to be the control side that made this token" in refused(berlin, name, stranger)
    assert "not all of it" in refused(berlin, name, world.token(berlin)[:-5])
    expired = joining.make_token(berlin.host, time.time() - 16 * 60).text
    assert "has expired" in refused(berlin, name, expired)
    assert "cannot be asked" in refused(berlin, f"{name}:4443", world.token(berlin))
    assert "Give the token" in refused(berlin, name)
    assert "is no address" in refused(berlin, "http://x/", world.token(berlin))
    # Typed on the machine of another host.
    on_paris = Joined(paris.machine, berlin.host, berlin.directory)
    assert "which is that of host Paris" in refused(on_paris, name, world.token(berlin))
    # The mesh's network is one that this machine has.
    paris.machine.ip("addr", "add", mesh.addresses(mesh.the_mesh(), world.control.node)[0] + "9/64", "dev", "lo")
    assert "which this machine has" in refused(paris, name, world.token(paris))
    # Somebody else has its port.
    with berlin.machine.socket("0.0.0.0", socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", MESH_PORT))
        assert f"UDP port {MESH_PORT} is in use" in refused(berlin, name, world.token(berlin))
    # Whether it would work is said, and nothing done; then it works, once.
    token = world.token(berlin)
    before = berlin.files()
    done = berlin.tell("join", name, token, "--check")
    assert (done.returncode, berlin.files()) == (0, before), done.stdout
    assert "becomes host Berlin" in done.stdout
    file = world.directory / "token"
    file.write_text(token + "\n")
    done = berlin.tell("join", name, "--token-file", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "start the worker with bin/host run" in done.stdout  # systemd does not run here
    modes = {path.name: path.stat().st_mode & 0o777 for path in berlin.directory.iterdir()}
    assert set(modes.values()) == {0o600}
    assert berlin.directory.stat().st_mode & 0o777 == 0o700
    key = (berlin.directory / "mesh_key").read_bytes()
    assert "has been used" in refused(berlin, name, token)
    berlin.launch("run")
    world.wait(lambda: berlin.status().get("green"))
    # Again, with a new token: the key and the address stay, and the worker that runs is to be ended first.
    address = world.address(berlin.host)
    assert "end that one first" in refused(berlin, name, world.token(berlin))
    berlin.end()
    assert berlin.tell("join", name, world.token(berlin)).returncode == 0
    berlin.launch("run")
    world.wait(lambda: berlin.status().get("green"))
    # The control side's own machine is in the mesh by now, and is no other host as well.
    amiss = Joined(world.stack.machine, paris.host, world.directory / "amiss")
    assert "carries tunnels of an installation already" in refused(amiss, name, world.token(paris))
    assert (berlin.directory / "mesh_key").read_bytes() == key
    assert world.address(Host.objects.get(pk=berlin.host.pk)) == address


@pytest.mark.long
def test_host_that_is_removed_is_out_of_everything_at_once_and_one_that_leaves_as_well(world: Installation) -> None:
    berlin, paris = world.add("Berlin"), world.add("Paris")
    world.join(berlin)
    world.join(paris)
    server = Server.objects.create(name="Office", network="10.8.0.0/24", wg_network="10.9.0.0/24", started=True)
    for each in (berlin, paris):
        ServerHost.objects.create(server=server, host=each.host)
    world.wait(lambda: ServerHost.objects.exclude(public_key="").count() == 2)
    key = MeshNode.objects.get(host=berlin.host).public_key
    secret = (berlin.directory / "host.env").read_text()
    session = shaken(paris)
    public_id = berlin.host.public_id
    berlin.host.delete()
    for machine in (world.stack.machine, paris.machine):
        world.wait(lambda machine=machine: key not in machine.run("wg", "show", "wgm0", "peers").stdout)
    world.wait(lambda: f"host.{public_id}" not in redis_client().acl_users())
    # It was told, and has taken everything down.
    world.wait(lambda: not {"wgs", "wgm"} & {line.split(":")[1].strip()[:3] for line in links(berlin)})
    assert f"host.{public_id}" in secret
    assert "green" in json.dumps(berlin.status())
    assert berlin.status()["green"] is False
    world.wait(lambda: not redis_client().keys(f"host.{public_id}*"))
    # The other one is none the wiser.
    assert shaken(paris) == session or paris.status()["green"]
    paris.end()
    done = paris.tell("leave")
    assert done.returncode == 0, done.stdout
    assert "The control side was told" in done.stdout
    assert (paris.directory.exists(), links(paris)) == (False, [])
    assert "wgvpn" not in paris.machine.run("nft", "list", "tables").stdout
    world.wait(lambda: not MeshNode.objects.filter(host=paris.host).exists())
    world.wait(lambda: "wgm0" not in world.stack.machine.ip("link"))  # it is alone again
    world.wait(lambda: redis_client().config_get("port")["port"] == "0")


def links(added: Joined) -> list[str]:
    return [line for line in added.machine.ip("-o", "link").splitlines() if ": wg" in line]


def shaken(added: Joined) -> str:
    return added.machine.run("wg", "show", "wgm0", "latest-handshakes").stdout


@pytest.mark.long
def test_restarts_of_redis_and_of_hosts_are_made_up_for(world: Installation) -> None:
    berlin = world.add("Berlin")
    world.join(berlin)
    redis = world.stack.redis
    assert isinstance(redis, RedisServer)
    # Redis dies and comes back: its users are in its file, and it listens again as soon as it is asked to.
    redis.kill()
    redis.start()
    world.wait(lambda: world.alive(berlin))
    # The worker ends, and its tunnels stay.
    before = berlin.machine.run("wg", "show", "wgm0", "public-key").stdout
    berlin.end()
    assert "wgm0" in berlin.machine.ip("link")
    assert berlin.machine.pings(world.address(world.control))
    # The machine starts anew while Redis is away: it has nothing but its files, and the mesh comes up from these.
    kill_wireguard(berlin)
    world.wait(lambda: "wgm0" not in berlin.machine.ip("link"))
    berlin.machine.run("sh", "-c", "ip rule del pref 32700; ip -6 rule del pref 32700; nft flush ruleset", check=False)
    redis.kill()
    berlin.launch("run")
    world.wait(lambda: berlin.machine.pings(world.address(world.control), timeout=ONE_TRY))
    assert berlin.machine.run("wg", "show", "wgm0", "public-key").stdout == before
    redis.start()
    world.wait(lambda: berlin.status().get("green"))
    # Somebody takes the interface away.
    berlin.machine.ip("link", "del", "wgm0")
    world.wait(lambda: berlin.machine.pings(world.address(world.control), timeout=ONE_TRY))


def kill_wireguard(added: Joined) -> None:
    """As a reboot does."""
    for pid in added.machine.processes():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"wireguard-go\0wgm0"):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.long
def test_machine_behind_nat_joins_and_the_network_of_the_mesh_is_changed_under_all(world: Installation) -> None:
    router = world.lab.add_client()
    machine = world.lab.add_behind(router, 60)
    router.run("nft", "add table ip n; add chain ip n p { type nat hook postrouting priority 100; }")
    router.run("nft", 'add rule ip n p oifname "eth0" masquerade')
    machine.address = router.address  # as who is told of it believes
    berlin, home = world.add("Berlin"), world.add("home", machine)
    world.join(berlin)
    world.join(home)
    # Nobody reaches it by the address that its host has, but it sends, and is answered where it sends from.
    for other in (world.stack.machine, berlin.machine):
        world.wait(lambda other=other: other.pings(world.address(home.host), timeout=ONE_TRY))
    full_packets_pass_where_the_way_is_narrower(world, router, berlin, home)
    row = mesh.the_mesh()
    before = row.network
    row.network = "10.77.0.0/24"
    row.full_clean()
    mesh.change_network(row, before)
    for each in (berlin, home):
        world.wait(lambda each=each: has(each, 2) and each.status()["green"])
    # Once its time is over the network of before is gone, and nobody misses it.
    mesh.forget_former(time.time() + mesh.FORMER_FOR + 1)
    for each in (berlin, home):
        world.wait(lambda each=each: has(each, 1) and each.status()["green"])


def full_packets_pass_where_the_way_is_narrower(
    world: Installation, router: Machine, berlin: Joined, home: Joined
) -> None:
    """One end's own link takes less than the other end's, as with PPPoE. That end sends no more by itself; what the
    other sends is told so on its way, or is cut there."""
    router.ip("link", "set", "lan60", "mtu", "1400")
    home.machine.ip("link", "set", home.machine.interface, "mtu", "1400")
    for added, mtu in ((home, 1320), (berlin, 1420)):
        world.wait(lambda added=added, mtu=mtu: f"mtu {mtu} " in added.machine.ip("link", "show", "wgm0"))
    for here, there, mtu in ((home, berlin, 1320), (berlin, home, 1420), (berlin, home, 1420)):
        ping = ("ping", "-c", "1", "-W", "1", "-M", "do", "-s", str(mtu - 48), world.address(there.host))
        world.wait(lambda here=here, ping=ping: here.machine.run(*ping, check=False).returncode == 0)


def has(added: Joined, count: int) -> bool:
    """So many addresses in the mesh, one of them in the new network."""
    addresses = added.status().get("mesh", "").split(", ")
    return len(addresses) == count and any(each.startswith("10.77.0.") for each in addresses)
