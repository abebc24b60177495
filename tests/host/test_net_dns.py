"""Names of clients and DNS for them: a real unbound per server, asked through real tunnels."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from servers.hostnet.dns import control, unbound
from servers.hostnet.state import Dns
from tests.dnsclient import SERVFAIL, Answer, dns_server, lookup, reverse
from tests.host import privileged
from tests.host.conftest import World
from tests.host.named import (
    GATEWAY,
    GATEWAY6,
    INTERNAL,
    OTHER_GATEWAY,
    PLAIN,
    TLS_NAME,
    UNKNOWN,
    UPSTREAM,
    WORLDWIDE,
    Scene,
    bound,
    command_line,
    end,
    known,
    make_certificate,
    named,
    tunnel,
)
from tests.lab import HANGING, NEVER, PYTHON, until
from vpnproject.runner import privileges

pytestmark = pytest.mark.host


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
        # Nothing of what its starter has, and no way to get it back.
        left = {name: int(value, 16) for name, value in privileged.status(pid).items() if name.startswith("Cap")}
        assert (left["CapPrm"], left["CapEff"], left["CapAmb"]) == (0, 0, 0)
        assert privileged.status(pid)["NoNewPrivs"] == "1"
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
    assert "wgs1: the interface was gone" in str(scene.world.control.report("repaired")["drift"])
    scene.soon("phone.bob.acme.vpn", known("10.9.0.12"))
    assert lookup(scene.alice, GATEWAY6, "phone.bob.acme.vpn", "AAAA") == known("fd01::12")
    assert scene.serving() == before


def test_cleanup_leaves_no_unbound_of_ours_and_touches_no_other(scene: Scene, tmp_path: Path) -> None:
    world = scene.world
    with dns_server(world.host, "127.0.0.9", WORLDWIDE, tmp_path):
        world.kill_worker()
        assert len(scene.serving()) == 2
        cleanup = privileges.wrapped("host", [str(PYTHON), "-m", "servers.hostnet", "--cleanup"])
        world.host.run("env", "HOSTNET_BACKEND=userspace", *cleanup)
        world.host.run(PYTHON, "-c", "from servers.hostnet.dns import unbound; unbound.remove_directories()")
        assert scene.serving() == []
        assert lookup(world.host, "127.0.0.9", "www.example.org") == known("192.0.2.80")
    assert world.host.run("ls", "/etc/unbound", "/var/lib/unbound").stdout.count("vpn") == 0
    world.start_worker()
    # The tunnels were taken down with it, and need a new handshake.
    scene.soon("phone.bob.acme.vpn", known("10.9.0.12"))
