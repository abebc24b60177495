"""Names of clients and DNS for them: a real unbound per server, asked through real tunnels."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from servers.hostnet.dns import control, unbound
from servers.hostnet.state import Dns, RemovePeers, Split
from tests.dnsclient import NOERROR, NXDOMAIN, SERVFAIL, Answer, dns_server, lookup, reverse
from tests.host.conftest import World
from tests.lab import HANGING, NEVER, ONE_TRY, PYTHON, KeyPair, Machine, Namespace, Tunnel, until

pytestmark = pytest.mark.host

GATEWAY, GATEWAY6, OTHER_GATEWAY = "10.9.0.1", "fd01::1", "10.10.0.1"
TLS_NAME = "dns.test-company.example"
UPSTREAM = "198.51.100.254"
# What the world's DNS knows. It also has a name in our zone, so that it is seen when that is asked for out there.
WORLDWIDE = [
    "www.example.org. A 192.0.2.80",
    "private.example.org. A 192.168.3.3",
    "intern.corp.example. A 192.0.2.66",
    "leak.vpn. A 192.0.2.99",
    "200.0.9.10.in-addr.arpa. PTR leak.example.",
    "7.7.168.192.in-addr.arpa. PTR printer.example.",
]
INTERNAL = ["intern.corp.example. A 10.50.0.7", "intern.corp.example. AAAA fd77::7"]
PLAIN = Dns("vpn", (UPSTREAM,), "", (Split("corp.example", ("10.50.0.2",)),))


@dataclass
class Scene:
    """Alice and Bob are on server one with names, Charlie is on server two. All send everything into the tunnel."""

    world: World
    alice: Machine
    bob: Machine
    charlie: Machine
    lan: Machine

    @property
    def host(self) -> Machine:
        return self.world.host

    def ask(self, name: str, kind: str = "A") -> Answer | None:
        return lookup(self.alice, GATEWAY, name, kind)

    def soon(self, name: str, expected: Answer) -> None:
        """Wait until the answer is ``expected``."""
        until(lambda: lookup(self.alice, GATEWAY, name, timeout=ONE_TRY) == expected)

    def charlie_has_names(self) -> None:
        """Wait until Charlie's server answers him."""
        own = known("10.10.0.13")
        until(lambda: lookup(self.charlie, OTHER_GATEWAY, "charlie.acme.vpn", timeout=ONE_TRY) == own)

    def set_dns(self, server: str, dns: Dns | None) -> None:
        self.world.interfaces[server] = dataclasses.replace(self.world.interfaces[server], dns=dns)
        self.world.send_full()

    def reported_error(self) -> str:
        """What the host reports with the next full state."""
        self.world.version += 1
        self.world.control.send(self.world.state())
        report = self.world.control.report("applied", version=self.world.version)
        return "; ".join(each["text"] for each in report["conditions"])

    def serving(self) -> list[int]:
        """Pids of unbound on the host."""
        return [pid for pid in self.host.processes() if b"/etc/unbound/vpn/" in command_line(pid)]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def known(*data: str) -> Answer:
    return Answer(NOERROR, frozenset(data))


UNKNOWN = Answer(NXDOMAIN)


def named(world: World, server: str, connection: str, name: str, *addresses: str) -> tuple[str, KeyPair]:
    """A connect of a client with names; the host's answer."""
    keys = KeyPair.make()
    allowed = (f"{address}/{128 if ':' in address else 32}" for address in addresses)
    peer = world.make_peer(server, connection, *allowed, keys=keys)
    peer = dataclasses.replace(peer, names=(name, name.partition(".")[2]))
    world.peers[connection] = (server, peer)
    return world.control.add(server, peer), keys


def end(world: World, connection: str) -> None:
    del world.peers[connection]
    world.version += 1
    world.control.send(RemovePeers(world.version, (connection,)))


def tunnel(scene: World, client: Machine, server: str, keys: KeyPair, *addresses: str) -> None:
    made = Tunnel(client, keys, [f"{each}/{64 if ':' in each else 24}" for each in addresses])
    routes = ["10.9.0.0/24", "10.10.0.0/24", "10.50.0.0/24", "fd01::/64"]
    port = scene.interfaces[server].port
    made.connect(scene.keys[server], f"{scene.host.address}:{port}", routes)


@pytest.fixture(scope="module")
def scene(world: World) -> Iterator[Scene]:
    lab, host = world.lab, world.host
    lan = lab.add_lan(host, 50)
    alice, bob, charlie = (lab.add_client() for _ in range(3))
    scene = Scene(world, alice, bob, charlie, lan)
    with ExitStack() as stack:
        for where, address, records in (
            (lab.internet, UPSTREAM, WORLDWIDE),
            (lan, lan.address, INTERNAL),
        ):
            stack.enter_context(dns_server(where, address, records, world.directory))
        scene.set_dns("one", PLAIN)
        scene.set_dns("two", Dns("vpn", (UPSTREAM,), "", ()))
        for machine, server, connection, name, addresses in (
            (alice, "one", "a1", "laptop.alice.acme.vpn", ("10.9.0.11", "fd01::11")),
            (bob, "one", "b1", "phone.bob.acme.vpn", ("10.9.0.12", "fd01::12")),
            (charlie, "two", "c1", "desk.charlie.acme.vpn", ("10.10.0.13",)),
        ):
            answer, keys = named(world, server, connection, name, *addresses)
            assert answer == "ok"
            tunnel(world, machine, server, keys, *addresses)
        scene.soon("phone.bob.acme.vpn", known("10.9.0.12"))
        scene.charlie_has_names()
        yield scene


def test_names_of_connected_clients_in_both_families_and_back(scene: Scene) -> None:
    for name in ("phone.bob.acme.vpn", "bob.acme.vpn", "Phone.Bob.ACME.vpn"):
        assert scene.ask(name) == known("10.9.0.12")
        assert scene.ask(name, "AAAA") == known("fd01::12")
    assert reverse(scene.alice, GATEWAY, "10.9.0.12") == known("phone.bob.acme.vpn")
    assert reverse(scene.alice, GATEWAY, "fd01::12") == known("phone.bob.acme.vpn")
    # The other gateway address of the same server.
    assert lookup(scene.alice, GATEWAY6, "phone.bob.acme.vpn") == known("10.9.0.12")
    # A server without IPv6 has names all the same, and none in the other family.
    assert lookup(scene.charlie, OTHER_GATEWAY, "desk.charlie.acme.vpn", "AAAA") == known()


def test_names_come_and_go_with_their_connections(scene: Scene) -> None:
    world = scene.world
    assert scene.ask("new.dora.acme.vpn") == UNKNOWN
    assert named(world, "one", "d1", "new.dora.acme.vpn", "10.9.0.14", "fd01::14")[0] == "ok"
    scene.soon("new.dora.acme.vpn", known("10.9.0.14"))
    end(world, "d1")
    scene.soon("new.dora.acme.vpn", UNKNOWN)
    scene.soon("dora.acme.vpn", UNKNOWN)
    assert scene.ask("new.dora.acme.vpn", "AAAA") == UNKNOWN
    for address in ("10.9.0.14", "fd01::14"):
        assert reverse(scene.alice, GATEWAY, address) == UNKNOWN


def test_a_users_name_has_all_their_devices(scene: Scene) -> None:
    world = scene.world
    for connection, device, address in (("e1", "phone", "10.9.0.15"), ("e2", "laptop", "10.9.0.16")):
        assert named(world, "one", connection, f"{device}.eve.acme.vpn", address)[0] == "ok"
    scene.soon("eve.acme.vpn", known("10.9.0.15", "10.9.0.16"))
    end(world, "e1")
    scene.soon("eve.acme.vpn", known("10.9.0.16"))
    assert scene.ask("laptop.eve.acme.vpn") == known("10.9.0.16")
    end(world, "e2")
    scene.soon("eve.acme.vpn", UNKNOWN)


def test_a_full_state_changes_names_without_a_restart(scene: Scene) -> None:
    world, before = scene.world, scene.serving()
    server, peer = world.peers["b1"]
    world.peers["b1"] = (server, dataclasses.replace(peer, names=("renamed.bob.acme.vpn", "bob.acme.vpn")))
    world.send_full()
    scene.soon("renamed.bob.acme.vpn", known("10.9.0.12"))
    scene.soon("phone.bob.acme.vpn", UNKNOWN)
    assert reverse(scene.alice, GATEWAY, "10.9.0.12") == known("renamed.bob.acme.vpn")
    world.peers["b1"] = (server, peer)
    world.send_full()
    scene.soon("phone.bob.acme.vpn", known("10.9.0.12"))
    assert scene.serving() == before


def test_a_plan_says_what_would_change_of_the_names(scene: Scene) -> None:
    world = scene.world
    until(lambda: world.ask_plan(world.state()) == {"lines": []})
    running = Path(f"/proc/{scene.host.pid}/root{unbound.socket_path('wgs1')}")
    control.remove(running, ["bob.acme.vpn."])
    control.add(running, ["stranger.acme.vpn. 1 IN A 10.9.0.77"])
    assert world.ask_plan(world.state()) == {"lines": ["wgs1: DNS records to add: 2, to remove: 1"]}
    control.remove(running, ["stranger.acme.vpn."])
    control.add(running, ["bob.acme.vpn. 1 IN A 10.9.0.12", "bob.acme.vpn. 1 IN AAAA fd01::12"])
    before = world.interfaces["one"]
    for dns, words in (
        (None, "wgs1: end its DNS server"),
        (dataclasses.replace(PLAIN, zone="other"), "wgs1: start its DNS server with another configuration"),
    ):
        world.interfaces["one"] = dataclasses.replace(before, dns=dns)
        assert world.ask_plan(world.state()) == {"lines": [words]}
    world.interfaces["one"] = before
    assert world.ask_plan(world.state()) == {"lines": []}


def test_unknown_names_of_the_zone_are_never_asked_for_elsewhere(scene: Scene) -> None:
    assert lookup(scene.host, UPSTREAM, "leak.vpn") == known("192.0.2.99")  # out there it is
    assert scene.ask("leak.vpn") == UNKNOWN
    assert reverse(scene.alice, GATEWAY, "10.9.0.200") == UNKNOWN
    assert reverse(scene.alice, GATEWAY, "fd01::200") == UNKNOWN


def test_all_else_is_forwarded_private_addresses_included(scene: Scene) -> None:
    assert scene.ask("www.example.org") == known("192.0.2.80")
    assert scene.ask("private.example.org") == known("192.168.3.3")
    assert reverse(scene.alice, GATEWAY, "192.168.7.7") == known("printer.example")
    assert scene.ask("no.example.org") == UNKNOWN


def test_split_domains_go_to_their_own_servers(scene: Scene) -> None:
    assert scene.ask("intern.corp.example") == known("10.50.0.7")
    assert scene.ask("intern.corp.example", "AAAA") == known("fd77::7")
    # For the other server it is no split domain: the world's DNS answers.
    assert lookup(scene.charlie, OTHER_GATEWAY, "intern.corp.example") == known("192.0.2.66")


def test_only_the_servers_own_clients_are_answered(scene: Scene) -> None:
    host, lan = scene.host, scene.lan
    assert lookup(scene.charlie, GATEWAY, "bob.acme.vpn", timeout=NEVER) is None
    assert lookup(scene.alice, OTHER_GATEWAY, "charlie.acme.vpn", timeout=NEVER) is None
    for address in (host.address, "10.50.0.1"):
        assert lookup(lan, address, "bob.acme.vpn", timeout=NEVER) is None
    lan.ip("route", "replace", f"{GATEWAY}/32", "via", "10.50.0.1")
    assert lookup(lan, GATEWAY, "bob.acme.vpn", timeout=NEVER) is None
    # Each knows its own names only.
    assert scene.ask("charlie.acme.vpn") == UNKNOWN
    assert lookup(scene.charlie, OTHER_GATEWAY, "bob.acme.vpn") == UNKNOWN
    # It listens on the gateway's addresses and nowhere else.
    listening = {line.split()[3] for line in host.run("ss", "-Hlnu", "sport = 53").stdout.splitlines()}
    assert listening == {f"{GATEWAY}:53", f"[{GATEWAY6}]:53", f"{OTHER_GATEWAY}:53"}


def test_it_is_not_root_and_only_root_may_tell_it_anything(scene: Scene) -> None:
    for pid in scene.serving():
        assert "root" not in scene.host.run("ps", "-o", "user=", "-p", str(pid)).stdout
    assert len(scene.serving()) == 2
    ask = "import socket, sys; s = socket.socket(socket.AF_UNIX); sys.exit(s.connect_ex(sys.argv[1]))"
    path = "/var/lib/unbound/vpn/wgs1.ctl"
    for user in ("nobody", "unbound"):
        tried = scene.host.run(
            "setpriv", f"--reuid={user}", "--clear-groups", "python3", "-c", ask, path, check=False, text=""
        )
        assert tried.returncode == 13, tried.stderr  # EACCES
    assert scene.host.run("python3", "-c", ask, path).returncode == 0


def test_when_it_is_killed_it_comes_back_with_all_names(scene: Scene) -> None:
    before = scene.serving()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    scene.soon("phone.bob.acme.vpn", known("10.9.0.12"))
    scene.charlie_has_names()
    assert scene.ask("alice.acme.vpn", "AAAA") == known("fd01::11")
    assert len(scene.serving()) == 2
    assert not set(scene.serving()) & set(before)


def test_one_that_hangs_is_replaced(scene: Scene) -> None:
    before = scene.serving()
    for pid in before:
        os.kill(pid, signal.SIGSTOP)
    scene.soon("bob.acme.vpn", known("10.9.0.12"))
    until(lambda: len(scene.serving()) == 2 and not set(scene.serving()) & set(before))


def test_a_killed_workers_resolvers_answer_on_and_are_replaced_by_the_next(scene: Scene) -> None:
    world, before = scene.world, scene.serving()
    world.kill_worker()
    assert scene.ask("phone.bob.acme.vpn") == known("10.9.0.12")
    # While nobody was there to tell it, Bob left.
    _, peer = world.peers.pop("b1")
    world.start_worker()
    scene.soon("bob.acme.vpn", UNKNOWN)
    until(lambda: len(scene.serving()) == 2 and not set(scene.serving()) & set(before))
    world.peers["b1"] = ("one", peer)
    world.send_full()
    scene.soon("bob.acme.vpn", known("10.9.0.12"))


def test_a_resolver_whose_server_is_gone_when_the_next_worker_starts_is_ended(scene: Scene) -> None:
    world = scene.world
    world.kill_worker()
    two = world.interfaces["two"]
    world.interfaces["two"] = dataclasses.replace(two, dns=None)
    world.start_worker()
    until(lambda: len(scene.serving()) == 1)
    world.interfaces["two"] = two
    world.send_full()
    scene.charlie_has_names()


def test_without_servers_of_its_own_it_asks_those_of_the_host(scene: Scene, tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(f"search example.org\nnameserver {GATEWAY}\nnameserver {UPSTREAM}\n")
    with bound(scene.host, file, "/etc/resolv.conf"):
        scene.set_dns("one", dataclasses.replace(PLAIN, servers=()))
        # The worker looks at that file every 10 s.
        scene.soon("www.example.org", known("192.0.2.80"))
        forwards = scene.host.run("cat", "/etc/unbound/vpn/wgs1.conf").stdout
        assert f"forward-addr: {UPSTREAM}" in forwards
        assert f"forward-addr: {GATEWAY}" not in forwards
    scene.set_dns("one", PLAIN)


def test_over_tls_it_asks_only_who_has_the_right_certificate(scene: Scene, tmp_path: Path) -> None:
    bundle, certificate, key = make_certificate(tmp_path)
    upstream = scene.world.lab.internet
    upstream.ip("addr", "add", "198.51.100.253/24", "dev", "br0")
    over_tls = dataclasses.replace(PLAIN, servers=("198.51.100.253",), tls_name=TLS_NAME)
    with (
        dns_server(upstream, "198.51.100.253", ["tls.example.org. A 192.0.2.85"], tmp_path, tls=(certificate, key)),
        bound(scene.host, bundle, "/etc/ssl/certs/ca-certificates.crt"),
    ):
        scene.set_dns("one", over_tls)
        scene.soon("tls.example.org", known("192.0.2.85"))
        assert scene.ask("phone.bob.acme.vpn") == known("10.9.0.12")
        assert scene.ask("intern.corp.example") == known("10.50.0.7")  # split domains are asked plainly
        # The same server, but not the name in its certificate.
        scene.set_dns("one", dataclasses.replace(over_tls, tls_name="another.example"))
        failed = Answer(SERVFAIL)
        scene.soon("phone.bob.acme.vpn", known("10.9.0.12"))
        untrusted = "wgs1: no DNS for clients: the DNS servers' TLS certificate is not good for them"
        until(lambda: scene.ask("tls.example.org") == failed and scene.reported_error() == untrusted, every=0.3)
    scene.world.interfaces["one"] = dataclasses.replace(scene.world.interfaces["one"], dns=PLAIN)
    until(lambda: scene.reported_error() == "", every=0.3)
    scene.soon("www.example.org", known("192.0.2.80"))


def test_switched_off_nothing_answers_and_nothing_is_left(scene: Scene) -> None:
    scene.set_dns("one", None)
    until(lambda: len(scene.serving()) == 1)
    assert lookup(scene.alice, GATEWAY, "phone.bob.acme.vpn", timeout=NEVER) is None
    assert lookup(scene.charlie, OTHER_GATEWAY, "charlie.acme.vpn") == known("10.10.0.13")
    assert scene.host.run("ls", "/etc/unbound/vpn", "/var/lib/unbound/vpn").stdout.count("wgs1") == 0
    scene.set_dns("one", PLAIN)
    scene.soon("phone.bob.acme.vpn", known("10.9.0.12"))
    # Off and on again before it could end.
    before = scene.serving()
    scene.set_dns("one", None)
    scene.set_dns("one", PLAIN)
    until(lambda: len(scene.serving()) == 2 and scene.serving() != before)
    after = scene.serving()
    scene.soon("phone.bob.acme.vpn", known("10.9.0.12"))
    assert scene.serving() == after


def test_what_keeps_it_from_starting_is_in_the_hosts_report_and_tunnels_work(scene: Scene) -> None:
    world = scene.world
    scene.set_dns("two", None)
    until(lambda: len(scene.serving()) == 1)
    listen = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('10.10.0.1', 53)); input()"
    taken = world.host.start("sh", "-c", f'sleep 3600 | python3 -c "{listen}"')
    until(lambda: f"{OTHER_GATEWAY}:53" in world.host.run("ss", "-Hlnu").stdout)
    world.interfaces["two"] = dataclasses.replace(world.interfaces["two"], dns=PLAIN)

    expected = "wgs2: no DNS for clients: unbound did not start: bind: address already in use; could not open ports"
    until(lambda: scene.reported_error() == expected, every=0.3)
    assert scene.charlie.pings(OTHER_GATEWAY)
    for pid in world.host.processes():
        if b"10.10.0.1" in command_line(pid):
            os.kill(pid, signal.SIGKILL)
    taken.wait(HANGING)
    # It is tried again, and then the report says nothing more of it.
    scene.charlie_has_names()
    until(lambda: scene.reported_error() == "", every=0.3)


def test_a_tunnel_that_was_made_anew_has_its_names_in_both_families(scene: Scene) -> None:
    before = scene.serving()
    scene.host.ip("link", "del", "wgs1")
    until(lambda: lookup(scene.alice, GATEWAY, "phone.bob.acme.vpn", timeout=NEVER) is None)
    scene.world.send_full()
    scene.soon("phone.bob.acme.vpn", known("10.9.0.12"))
    assert lookup(scene.alice, GATEWAY6, "phone.bob.acme.vpn", "AAAA") == known("fd01::12")
    assert scene.serving() == before


def test_cleanup_leaves_no_unbound_of_ours_and_touches_no_other(scene: Scene, tmp_path: Path) -> None:
    world = scene.world
    with dns_server(world.host, "127.0.0.9", WORLDWIDE, tmp_path):
        world.kill_worker()
        assert len(scene.serving()) == 2
        cleanup = (PYTHON, "-m", "servers.hostnet", "--cleanup")
        world.host.run("env", "HOSTNET_BACKEND=userspace", *cleanup)
        assert scene.serving() == []
        assert lookup(world.host, "127.0.0.9", "www.example.org") == known("192.0.2.80")
    assert world.host.run("ls", "/etc/unbound", "/var/lib/unbound").stdout.count("vpn") == 0
    world.start_worker()
    # The tunnels were taken down with it, and need a new handshake.
    scene.soon("phone.bob.acme.vpn", known("10.9.0.12"))


LOAD = """
import sys
from servers.hostnet.dns import config, control, unbound
from servers.hostnet.dns.records import Records
from servers.hostnet.state import Dns, Interface, Peer
dns = Dns("vpn", ("192.0.2.1",), "", ())
def peer(n):
    names = (f"laptop.user{n}.acme.vpn", f"user{n}.acme.vpn")
    return Peer(f"c{n}", 1, "", (f"10.9.{n // 250}.{n % 250 + 1}/32", f"fd01::{n + 2:x}/128"), names=names)
interface = Interface("wgs1", "one", 1, ("10.9.255.1/16", "fd01::1/64"), 0, False, 360, (), (), dns=dns)
path = unbound.socket_path("wgs1")
running = unbound.start("wgs1", config.text(interface, dns, path, []))
records = Records()
control.add(path, records.replace(map(peer, range(int(sys.argv[1])))).lines())
one_more = list(records.change([], [peer(20020)]).lines())
control.add(path, one_more)
print(len(one_more))
"""


# What Debian's AppArmor profile lets unbound do (it is not active where tests run). Above all not dac_override: as
# root it writes nowhere but in root's own directories.
CONFINED = "-all,+chown,+fowner,+fsetid,+net_bind_service,+setgid,+setuid,+sys_chroot,+sys_resource"
WRITE = """
from servers.hostnet.dns import config, unbound
from servers.hostnet.state import Dns, Interface
dns = Dns("vpn", ("192.0.2.1",), "dns.example", ())
interface = Interface("wgs1", "one", 1, ("10.9.0.1/16", "fd01::1/64"), 0, False, 360, (), (), dns=dns)
unbound._write("wgs1", config.text(interface, dns, unbound.socket_path("wgs1"), []))
"""
ADD = """
from servers.hostnet.dns import control, unbound
control.add(unbound.socket_path("wgs1"), ["alice.vpn. 1 IN A 10.9.0.5"])
"""


def test_it_runs_with_what_debians_profile_allows(tmp_path: Path) -> None:
    with contextlib.closing(Namespace("confined")) as where:
        # As the package leaves it.
        where.run("chown", "unbound:unbound", "/var/lib/unbound")
        where.run(PYTHON, "-c", WRITE)
        unbound = ("/usr/sbin/unbound", "-d", "-c", "/etc/unbound/vpn/wgs1.conf")
        # Before the tunnel is there.
        where.start("setpriv", f"--bounding-set={CONFINED}", *unbound, log=tmp_path / "log")
        try:
            until(lambda: where.run(PYTHON, "-c", ADD, check=False).returncode == 0, every=0.2)
        except TimeoutError:
            pytest.fail((tmp_path / "log").read_text())
        where.ip("addr", "add", "10.9.0.1/16", "dev", "lo")
        assert lookup(where, "10.9.0.1", "alice.vpn") == known("10.9.0.5")
        users = where.run("ps", "-C", "unbound", "-o", "pid=,user=").stdout.split()
        assert "unbound" in users


def test_ten_thousand_names(tmp_path: Path) -> None:
    """All of them are there, and of one more as much is told as among ten."""
    told = set()
    for count in (10, 10_000):
        with contextlib.closing(Namespace(f"dns-{count}")) as where:
            where.ip("addr", "add", "10.9.255.1/16", "dev", "lo")
            told.add(where.run(PYTHON, "-c", LOAD, str(count)).stdout)
            last = count - 1
            address = f"10.9.{last // 250}.{last % 250 + 1}"
            assert lookup(where, "10.9.255.1", f"laptop.user{last}.acme.vpn") == known(address)
            assert lookup(where, "10.9.255.1", f"user{last}.acme.vpn", "AAAA") == known(f"fd01::{last + 2:x}")
            assert reverse(where, "10.9.255.1", address) == known(f"laptop.user{last}.acme.vpn")
            assert lookup(where, "10.9.255.1", "laptop.user20020.acme.vpn") == known("10.9.80.21")
    assert len(told) == 1


@contextmanager
def bound(where: Machine, file: Path, over: str) -> Iterator[None]:
    """``file`` in the place of ``over``, for that machine only."""
    where.run("mount", "--bind", file, over)
    try:
        yield
    finally:
        where.run("umount", over)


def make_certificate(directory: Path) -> tuple[Path, Path, Path]:
    """A CA bundle, a certificate of that CA for ``TLS_NAME``, and its key."""
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def make(subject: str, its: ec.EllipticCurvePrivateKey, *, ca: bool) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name("Test CA"))
        builder = builder.public_key(its.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if not ca:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(subject)]), critical=False)
        return builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    contents: dict[str, bytes] = {
        "bundle.pem": make("Test CA", authority, ca=True),
        "certificate.pem": make(TLS_NAME, key, ca=False),
        "key.pem": key.private_bytes(pem, form, serialization.NoEncryption()),
    }
    for file, content in contents.items():
        (directory / file).write_bytes(content)
    return directory / "bundle.pem", directory / "certificate.pem", directory / "key.pem"
