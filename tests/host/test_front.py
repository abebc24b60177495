"""What stands before web and gateway web: whole requests, whoever sends half of one; and whose requests they are."""

from __future__ import annotations

import os
import secrets
import select
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from core import front_networks
from core.redis_store import redis_client
from servers import mesh
from servers.models import Mesh
from tests.factories import Company, HostStandIn, found
from tests.host import privileged
from tests.host.conftest import use_redis
from tests.lab import HANGING, NEVER, Lab, Machine, RedisServer, until
from tests.processes import environment
from tests.protocol_client import Identity, make_request, new_wg_key, plaintext
from tests.stack import GATEWAY_PORT, MESH, Stack, unverified
from tests.strangers import HEADERS, strangers
from users.models import Organization
from vpnproject.runner import front
from vpnproject.runner.following import Following
from wgpeers.models import Connection

pytestmark = [pytest.mark.host, pytest.mark.django_db(transaction=True)]

HOME = "127.0.0.1"  # where those come from whom strangers must not disturb


@dataclass
class Site:
    """The product on one machine, with a stand-in for its host; everything here comes from that machine itself."""

    lab: Lab
    machine: Machine
    stack: Stack
    company: Company

    def connection(self, port: int, source: str = HOME, address: str = HOME) -> socket.socket:
        plain = self.machine.socket(address, socket.SOCK_STREAM)
        plain.settimeout(HANGING)
        plain.bind((source, 0))
        plain.connect((address, port))
        return plain

    def secure(self, **where: str) -> ssl.SSLSocket:
        return unverified().wrap_socket(self.connection(443, **where))

    def connect(self, person: Identity, key: str, **headers: str) -> bytes:
        """A connect; ``headers`` are more than a client sends."""
        now = int(time.time())
        request = make_request(person, plaintext(wg_public_key=key, timestamp=now), now=now)
        return asked(self.secure(), request.wire(**headers))

    def ping(self, person: Identity, key: str) -> bytes:
        return asked(self.connection(GATEWAY_PORT), ping_of(person, key))


def ping_of(person: Identity, key: str) -> bytes:
    now = int(time.time())
    return make_request(person, plaintext(wg_public_key=key, timestamp=now), method="PUT", now=now).wire()


def asked(connection: socket.socket, request: bytes) -> bytes:
    """The whole answer; empty when the connection is ended without one."""
    with connection:
        try:
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(65536), b""))
        except ConnectionError:
            return b""


def is_good(answer: bytes) -> bool:
    return answer.startswith(b"HTTP/1.1 200 ")


def ended(connections: list[socket.socket]) -> int:
    """How many of them the other end has ended, with nothing said on them."""
    return len(select.select(connections, [], [], 0)[0])


@pytest.fixture(scope="module")
def running(rows_that_stay: None) -> Iterator[Site]:
    """All of it, started once for all tests of the module."""
    with pytest.MonkeyPatch.context() as patch, Lab() as lab, RedisServer() as server:
        use_redis(patch, server.url)
        machine = lab.add_host()
        company = found()
        for key in ("alive", "fresh"):  # it lives for as long as the tests take
            redis_client().persist(f"{company.host.queue}:{key}")
        with Stack(machine, server, environment(), ipv6=True) as stack, HostStandIn(company.host).running():
            try:
                yield Site(lab, machine, stack, company)
            finally:
                print(stack.log())


@pytest.fixture
def site(running: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """``running`` with people of this test's own."""
    use_redis(monkeypatch, running.stack.redis.url)
    organization = Organization.objects.create(name=f"Acme {secrets.token_hex(4)}")
    running.company.server.organizations.add(organization)
    yield replace(running, company=replace(running.company, organization=organization))
    running.machine.ip("addr", "flush", "dev", "lo", "scope", "global")
    until(lambda: connections_of_front(running) == "")


def connections_of_front(site: Site) -> str:
    """Those that it has not ended, or not noticed yet that the other side did."""
    own = f"( sport = :443 or sport = :{GATEWAY_PORT} )"
    return site.machine.run("ss", "-Htn", "state", "connected", "exclude", "time-wait", own).stdout


@pytest.mark.parametrize(("port", "tls"), [(443, True), (GATEWAY_PORT, False)])
def test_thousands_of_strangers_who_finish_nothing_stop_nobody(site: Site, port: int, tls: bool) -> None:
    alice, key = site.company.hire("alice")[1], new_wg_key()
    assert is_good(site.connect(alice, key))
    people = [site.company.hire(f"user{number}")[1] for number in range(10)]
    with strangers(site.machine, HOME, port, 5000, sources=50, tls=tls):
        until_most_have_been_refused_or_wait(site)
        for person in people:
            assert all(is_good(site.ping(alice, key)) for _ in range(5))
            assert is_good(site.connect(person, new_wg_key()))


def until_most_have_been_refused_or_wait(site: Site) -> None:
    """Long enough for all of them to have gone through every timeout once."""
    later = time.monotonic() + 2 * front.COMING
    until(lambda: time.monotonic() > later)


@pytest.mark.parametrize(
    ("port", "ones", "another", "to", "share"),
    [
        (443, ["127.0.9.1"], "127.0.9.2", HOME, front.PER_SOURCE),
        (GATEWAY_PORT, ["127.0.9.1"], "127.0.9.2", HOME, front.PER_TUNNEL),
        (443, ["fd00:0:0:a0a::1", "fd00:0:0:a0a::2"], "fd00:0:0:a0b::1", "fd00:0:0:a0b::1", front.PER_SOURCE),
    ],
)
def test_one_source_gets_its_share_and_others_theirs(
    site: Site, port: int, ones: list[str], another: str, to: str, share: int
) -> None:
    """An IPv6 /64 is one source, an IPv4 address another."""
    for address in {*ones, another}:
        if ":" in address:
            site.machine.ip("addr", "add", f"{address}/64", "dev", "lo")

    def too_many() -> bool:
        """Whether one of too many was ended, before any could be for its silence."""
        with ExitStack() as stack:
            sources = [another, *(ones[number % len(ones)] for number in range(share + 1))]
            sockets = [stack.enter_context(site.machine.socket(to, socket.SOCK_STREAM)) for _ in sources]
            began = time.monotonic()
            for connection, source in zip(sockets, sources, strict=True):
                connection.bind((source, 0))
                connection.connect((to, port))
            until(lambda: ended(sockets))
            in_time = time.monotonic() - began < front.COMING / 2
            assert not in_time or (ended(sockets[:1]), ended(sockets)) == (0, 1)
            return in_time

    until(too_many)


@pytest.mark.parametrize(("network", "counted"), [(MESH, False), ("fd00:0:0:a0d::/64", True)])
def test_hosts_of_the_mesh_bring_many_pings_each_and_are_not_counted(site: Site, network: str, counted: bool) -> None:
    site.machine.ip("addr", "add", f"{network.replace('::/64', '::7')}/64", "dev", "lo")
    assert is_counted(site, network) == counted


def is_counted(site: Site, network: str) -> bool:
    """Whether connections from one address of it are ended when there are too many."""
    host = network.replace("::/64", "::7")
    found: list[bool] = []

    def seen() -> bool:
        """Whether it was seen before any could be ended for its silence."""
        with ExitStack() as stack:
            kind = socket.SOCK_STREAM
            many = [stack.enter_context(site.machine.socket(host, kind)) for _ in range(3 * front.PER_TUNNEL)]
            began = time.monotonic()
            for connection in many:
                connection.bind((host, 0))
                connection.connect((host, GATEWAY_PORT))
            until(lambda: ended(many) or time.monotonic() - began > front.COMING / 4)
            found[:] = [bool(ended(many))]
            return time.monotonic() - began < front.COMING / 2

    until(seen)
    return found[0]


def test_the_front_follows_a_change_of_the_mesh_s_network_and_no_connection_ends(site: Site) -> None:
    """As ``bin/run`` has it do while it runs. Both networks work for a while; then the one of before is counted."""
    new, alice, key = "fd00:0:0:a0e::/64", site.company.hire("alice")[1], new_wg_key()
    assert is_good(site.connect(alice, key))
    for network in (MESH, new):
        site.machine.ip("addr", "add", f"{network.replace('::/64', '::7')}/64", "dev", "lo")
    assert (is_counted(site, MESH), is_counted(site, new)) == (False, True)
    row = mesh.the_mesh()
    Mesh.objects.filter(pk=row.pk).update(network=MESH)
    supervisor = FrontAlone(site.stack)
    following = Following(lambda: front_networks.said(redis_client()), supervisor.configure, (MESH,))
    mesh.tell_fronts()
    assert not following.changed()
    row.network = new
    mesh.change_network(row, MESH)
    for former_counts in (False, True):
        if former_counts:
            mesh.forget_former(time.time() + mesh.FORMER_FOR + 1)
        mesh.tell_fronts()
        until(lambda: goes_on_over_a_change(site, supervisor, following, alice, key))
        until(lambda: not is_counted(site, new))
        assert is_counted(site, MESH) is former_counts


class FrontAlone:
    """What the following needs of a supervisor, for the real front."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def configure(self, networks: tuple[str, ...]) -> None:
        self._stack.configure_front(*networks)

    def reload_front(self) -> None:
        assert self._stack.front is not None
        self._stack.front.send_signal(signal.SIGHUP)


def goes_on_over_a_change(site: Site, supervisor: FrontAlone, following: Following, person: Identity, key: str) -> bool:
    """Half a ping is under way while the front reads its configuration anew. Whether that was in its time."""
    assert site.stack.front is not None
    master = site.stack.front.pid
    before = {*children(master)}
    ping = ping_of(person, key)
    connection, began = site.connection(GATEWAY_PORT), time.monotonic()
    connection.sendall(ping[:-20])
    assert following.changed()
    supervisor.reload_front()
    until(lambda: {*children(master)} - before)
    answer = asked(connection, ping[-20:])
    in_time = time.monotonic() - began < front.COMING / 2
    assert not in_time or is_good(answer)
    if not in_time:
        following.again()
    return in_time


def test_headers_of_strangers_say_nothing_of_where_they_are(site: Site) -> None:
    lies = dict.fromkeys(("X-Front-Address", "X_Front_Address", "X-Forwarded-For", "X_Forwarded_For"), "203.0.113.9")
    alice, identity = site.company.hire("alice")
    assert is_good(site.connect(identity, new_wg_key(), **lies))
    assert Connection.objects.get(user=alice).client_address == HOME


def test_nobody_but_tunnels_is_answered_by_gateway_web_also_without_a_firewall(site: Site) -> None:
    """On this machine nothing of ours is in nftables, which is how it is just after somebody flushed them."""
    assert site.machine.run("nft", "list", "ruleset").stdout == ""
    alice, key = site.company.hire("alice")[1], new_wg_key()
    assert is_good(site.connect(alice, key))
    gateway, tunnel = "10.9.0.1", "10.9.0.9"
    site.machine.ip("link", "add", "tunnels", "type", "bridge")
    site.machine.ip("addr", "add", f"{gateway}/24", "dev", "tunnels")
    site.machine.ip("addr", "add", tunnel, "dev", "lo")
    site.machine.ip("link", "set", "tunnels", "up")
    stranger = site.lab.add_client()
    stranger.ip("route", "add", gateway, "via", site.machine.address)
    stranger.ip("addr", "add", "10.9.0.77/32", "dev", "lo")
    now = int(time.time())
    ping = make_request(alice, plaintext(wg_public_key=key, timestamp=now), method="PUT", now=now)

    def answer(source: str, address: str, request: bytes) -> bytes:
        return asked(site.connection(GATEWAY_PORT, source, address), request)

    assert is_good(answer(tunnel, gateway, ping.wire()))
    # From the machine's other addresses, and to them.
    assert answer(site.machine.address, gateway, ping.wire()) == b""
    assert answer(tunnel, site.machine.address, ping.wire()) == b""
    lies = {"X-Front-Address": tunnel, "X-Front-Local": gateway, "X_Front_Local": gateway}
    for request in (
        ping.wire(),
        ping.wire(**lies),
        b"GET / HTTP/1.0\r\n\r\n",
        b"what\r\n\r\n",
        b"GET /.hang_up HTTP/1.0\r\n\r\n",
    ):
        for address in (site.machine.address, gateway):
            with stranger.socket(address, socket.SOCK_STREAM) as connection:
                connection.settimeout(HANGING)
                connection.connect((address, GATEWAY_PORT))
                assert asked(connection, request) == b""
    # In the name of one in the tunnel nobody gets as far: the answer goes there.
    assert stranger.ask_tcp(gateway, GATEWAY_PORT, ping.wire(), NEVER, source="10.9.0.77") is None
    assert is_good(answer(tunnel, gateway, ping.wire()))
    site.machine.ip("link", "del", "tunnels")


def test_a_request_that_is_too_long_or_too_slow_is_refused_in_front(site: Site) -> None:
    path = b"POST /key/wg/o/u/s HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    assert b" 413 " in asked(site.secure(), path % (64 * 1024 + 1)).split(b"\r\n")[0]
    assert b" 413 " in asked(site.secure(), path.replace(b"/key/wg/o/u/s", b"/admin/login/") % (5 * 2**20 + 1))[:20]
    assert not is_good(asked(site.connection(GATEWAY_PORT), HEADERS))
    # Of the admin's a long one gets through, to Django.
    body = b"x" * (2 * 2**20)
    assert b" 403 " in asked(site.secure(), path.replace(b"/key/wg/o/u/s", b"/admin/login/") % len(body) + body)[:20]


def test_what_is_no_request_is_answered_in_few_words_and_without_a_name(site: Site) -> None:
    request = b"GET /k/none HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
    plain = asked(site.connection(443), request)
    assert b" 400 " in plain.split(b"\r\n")[0]
    assert b"This port speaks HTTPS" in plain
    malformed = asked(site.secure(), b"what\r\n\r\n")
    # Names that the front has for itself.
    own = [asked(site.secure(), b"GET /.%s HTTP/1.0\r\n\r\n" % name) for name in (b"malformed", b"needs_tls")]
    own += [asked(site.secure(), request), asked(site.connection(GATEWAY_PORT), request)]
    for answer in (plain, malformed, *own):
        assert answer
        assert b"\nserver:" not in answer.lower(), answer
        assert b"nginx" not in answer.lower(), answer


def test_while_web_is_down_clients_are_told_to_try_again(site: Site) -> None:
    assert site.stack.web is not None
    site.stack.web.terminate()
    site.stack.web.wait(HANGING)
    assert b" 503 " in site.connect(site.company.hire("alice")[1], new_wg_key()).split(b"\r\n")[0]
    site.stack.start_again("web")
    until(lambda: b"200 OK" in site.stack.asked(443, "/admin/login/"))


def test_a_renewed_certificate_is_served_and_no_connection_ends(site: Site) -> None:
    old = site.secure()
    first = old.getpeercert(binary_form=True)
    request = b"GET /k/none HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
    old.sendall(request[:-2])
    site.stack.make_certificate()
    assert site.stack.front is not None
    site.stack.front.send_signal(signal.SIGHUP)

    def served() -> bytes | None:
        with site.secure() as new:
            return new.getpeercert(binary_form=True)

    until(lambda: served() != first)
    assert b" 404 " in asked(old, request[-2:]).split(b"\r\n")[0]


PLAIN = {
    "GET / HTTP/1.1\r\nHost: 192.0.2.7": "https://192.0.2.7/",
    "GET /admin/?q=a%20b HTTP/1.1\r\nHost: vpn.example.com:80": "https://vpn.example.com/admin/?q=a%20b",
    "HEAD /k/abc HTTP/1.1\r\nHost: [2001:db8::7]": "https://[2001:db8::7]/k/abc",
    "GET /keys HTTP/1.0\r\nHost: x": "https://x/keys",
    "GET / HTTP/1.0\r\nAccept: */*": "",
    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0": "",
    "PUT /key/wg/a/b/c HTTP/1.1\r\nHost: 10.9.0.1\r\nContent-Length: 0": "",
    "POST /key/wg/a/b/c HTTP/1.1\r\nHost: 10.9.0.1\r\nContent-Length: 0": "",
    "GET /key/sync/a/b/c/d HTTP/1.1\r\nHost: x": "",
    "GET //key/sync/a/b/c/d HTTP/1.1\r\nHost: x": "",
    "GET /%6bey/sync/a/b/c/d HTTP/1.1\r\nHost: x": "",
    "GET /a/../key/x HTTP/1.1\r\nHost: x": "",
    "GET /ku/abc HTTP/1.1\r\nHost: x": "",
    "nonsense": "",
}


def test_port_80_sends_people_to_https_and_hangs_up_on_programs(site: Site) -> None:
    """To a client a redirect, or a 4xx, may end a tunnel; where nobody answers it tries again, and elsewhere."""
    for request, where in PLAIN.items():
        answer = asked(site.connection(80), f"{request}\r\nConnection: close\r\n\r\n".encode())
        if where:
            assert answer.startswith(b"HTTP/1.1 301 "), request
            assert f"\r\nLocation: {where}\r\n".encode() in answer, request
            assert b"nginx" not in answer.lower()
        else:
            assert answer == b"", request


def test_who_reads_what_strangers_send_was_never_root(site: Site) -> None:
    assert site.stack.front is not None
    master = site.stack.front.pid
    workers = children(master)
    assert len(workers) >= 2
    for pid in (master, *workers):
        assert privileged.may(pid) == privileged.as_the_table_says("front")


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_front_killed_with_its_sockets_left_comes_back(site: Site) -> None:
    assert site.stack.front is not None
    for pid in [site.stack.front.pid, *children(site.stack.front.pid)]:
        os.kill(pid, signal.SIGKILL)
    site.stack.front.wait(HANGING)
    site.stack.start_front()
    until(lambda: b"200 OK" in site.stack.asked(443, "/admin/login/"))
