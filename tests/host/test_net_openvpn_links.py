"""Links that OpenVPN carries, with real packets and the real openvpn, between hosts of one installation."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from django.conf import LazySettings

from servers.hostnet.state import Code
from servers.models import Carrier, Host, ServerLink
from tests.host.linked import OFFICE_GATEWAY, SERVICE, Apart, Flow, Linked, on_two_hosts
from tests.lab import NEVER, Capture, Machine, segment_sizes

pytestmark = [pytest.mark.host, pytest.mark.django_db(transaction=True)]


PORT = 1195


@pytest.fixture
def apart(transactional_db: None, settings: LazySettings) -> Iterator[Apart]:
    with on_two_hosts(settings) as apart:
        yield apart


def link_by_openvpn(scene: Linked) -> ServerLink:
    row = ServerLink(first=scene.office.server, second=scene.lab.server, carrier=Carrier.OPENVPN, port=PORT)
    row.full_clean()
    row.save()
    return row


def conditions() -> set[str]:
    return {each["code"] for host in Host.objects.all() for each in host.conditions}


def pid_of(directory: Path) -> int:
    """Of the openvpn whose files are in ``directory``; 0 where there is none."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if words[0].endswith(b"openvpn") and os.fsencode(directory) in words[-2]:
                return int(path.parent.name)
    return 0


def without_links(machine: Machine) -> bool:
    return "wgo" not in machine.ip("link", "show")


def test_clients_networks_and_routes_are_reached_until_the_link_goes(apart: Apart) -> None:
    scene, lan, alice = apart.scene, apart.lan, apart.scene.alice
    link = link_by_openvpn(scene)
    scene.connect()
    scene.reach_each_other()
    scene.until_seen_as(alice.machine, lan.address, alice.addresses[0])
    scene.until_seen_as(alice.machine, lan.address6, "2001:db8:51::1")
    assert scene.seen_as(lan, alice.addresses[0]) == lan.address
    assert lan.ask_tcp(alice.addresses[1], SERVICE, timeout=NEVER) is None  # with NAT it only answers
    scene.until_seen_as(scene.bob.machine, scene.office.lan.address, "10.50.0.1")
    scene.wait(lambda: Code.LINK_DOWN.value not in conditions())
    nothing_is_seen_on_the_way(apart)
    scene.in_the_gateways_name(link)
    scene.in_their_own_names(link)
    full_size_packets(apart, link)
    unprivileged_and_nothing_else_is_open(apart)
    a_dead_process_comes_back_and_the_worker_is_not_needed(apart)
    cut_by_unlinking(apart, link)


def nothing_is_seen_on_the_way(apart: Apart) -> None:
    hosts, said = (apart.world.stack.machine, apart.berlin.machine), b"nobody else reads this"
    addresses = [address for host in hosts for address in (host.address, host.address6)]
    with Capture(apart.world.lab.internet, addresses) as capture:
        for address in apart.scene.bob.addresses:
            assert apart.scene.alice.machine.ask_udp(address, SERVICE, said) is not None
    carried_by = [packet for packet in capture.packets if PORT in packet.ports]
    assert len(carried_by) >= 4
    assert not [packet for packet in capture.packets if said in packet.body]


def unprivileged_and_nothing_else_is_open(apart: Apart) -> None:
    links = apart.berlin.directory / "links"
    pid = pid_of(links)
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert set(status["Uid"].split()) == {"65534"}
    assert {status[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {"0" * 16}
    assert {path.stat().st_mode & 0o777 for path in links.glob("*.conf")} == {0o600}
    assert links.stat().st_mode & 0o777 == 0o700
    # The host at the other end has nothing for who comes through the link, and whoever is no party to it gets nowhere.
    device = next(path.stem for path in links.glob("*.conf"))
    scene, office, berlin = apart.scene, apart.world.stack.machine, apart.berlin.machine
    berlin.ip("addr", "add", "10.18.0.9/32", "dev", device)
    try:
        assert berlin.ask_tcp(OFFICE_GATEWAY[0], 53, timeout=NEVER, source="10.18.0.9") is None
        assert berlin.ask_udp(scene.alice.addresses[0], SERVICE, b"not mine", timeout=NEVER, source="10.18.0.9") is None
    finally:
        berlin.ip("addr", "del", "10.18.0.9/32", "dev", device)
    assert office.ask_tcp(apart.lan.address, SERVICE, timeout=NEVER) is None


def a_dead_process_comes_back_and_the_worker_is_not_needed(apart: Apart) -> None:
    scene, berlin = apart.scene, apart.berlin
    pid = pid_of(berlin.directory / "links")
    os.kill(pid, signal.SIGKILL)
    scene.wait(lambda: pid_of(berlin.directory / "links") not in (0, pid))
    scene.reach_each_other()
    pid = pid_of(berlin.directory / "links")
    flow = Flow(scene.alice.machine, scene.bob.addresses[0])
    assert flow.goes_on()
    berlin.end()
    assert flow.goes_on()
    berlin.launch("run")
    apart.world.wait(lambda: apart.world.alive(berlin))
    apart.world.wait(lambda: berlin.status().get("green"))
    assert flow.goes_on()
    assert pid_of(berlin.directory / "links") == pid
    flow.close()


def cut_by_unlinking(apart: Apart, link: ServerLink) -> None:
    scene, links = apart.scene, apart.berlin.directory / "links"
    scene.cut_by_unlinking(link, apart.lan.address, apart.lan.address6)
    scene.wait(lambda: pid_of(links) == 0)
    scene.wait(lambda: not [*links.iterdir()])
    for machine in (apart.berlin.machine, apart.world.stack.machine):
        scene.wait(partial(without_links, machine))
        assert "32689" not in machine.ip("rule", "show")
    again = link_by_openvpn(scene)
    scene.reach_each_other()
    again.delete()
    scene.wait(lambda: scene.seen_as(scene.alice.machine, scene.bob.addresses[0]) == "")


def full_size_packets(apart: Apart, link: ServerLink) -> None:
    """Clients' tunnels and the link's have 1,420 bytes here, as the way out has 1,500: nothing is in fragments, not
    even outside, and who sends more is told."""
    scene, lan = apart.scene, apart.lan
    hosts = (apart.world.stack.machine, apart.berlin.machine)
    segments_have(apart, 1420)
    with Capture(apart.world.lab.internet, [a for host in hosts for a in (host.address, host.address6)]) as capture:
        for who, address in (*ways(apart), (scene.site, scene.alice.addresses[1])):
            flow = Flow(who, address)
            assert flow.carries(1400, 100), (who.name, address)
            flow.close()
            assert "mtu=1420" in whole(who, address, 1500)
            assert " 0% packet loss" in whole(who, address, 1420)
    carried = [packet for packet in capture.packets if PORT in packet.ports]
    assert len(carried) > 1000
    assert max(len(packet.body) for packet in carried) == 1420 + 32  # by IPv4: 8 of UDP, 24 of OpenVPN
    assert not [packet for packet in capture.packets if packet.fragment]
    with narrow(apart, 1400):
        assert "100% packet loss" in whole(lan, scene.alice.addresses[0], 1400)
    link.mtu = 1320
    link.save()
    for host in hosts:
        scene.wait(partial(links_have, host, 1320))
    scene.wait(lambda: scene.seen_as(scene.alice.machine, lan.address))
    with narrow(apart, 1400):
        segments_have(apart, 1320)
        for who, address in ways(apart)[2:]:
            assert "mtu=1320" in whole(who, address, 1324)  # which a client's own tunnel has room for
            assert " 0% packet loss" in whole(who, address, 1320)


@contextlib.contextmanager
def narrow(apart: Apart, size: int) -> Iterator[None]:
    """Something before each host takes packets up to ``size`` bytes, and says nothing of what it drops."""
    ports = [host.port for host in (apart.world.stack.machine, apart.berlin.machine)]
    for port in ports:
        apart.world.lab.internet.ip("link", "set", port, "mtu", str(size))
    try:
        yield
    finally:
        for port in ports:
            apart.world.lab.internet.ip("link", "set", port, "mtu", "1500")


def ways(apart: Apart) -> list[tuple[Machine, str]]:
    """Who sends where: both directions, both IP versions, between clients, and with networks on both sides of Lab."""
    alice, bob = apart.scene.alice, apart.scene.bob
    return [
        *((alice.machine, address) for address in bob.addresses),
        (alice.machine, apart.lan.address),
        (apart.lan, alice.addresses[0]),
    ]


def segments_have(apart: Apart, mtu: int) -> None:
    alice, bob = apart.scene.alice, apart.scene.bob
    for client, server, address in (
        *((alice.machine, bob.machine, each) for each in bob.addresses),
        *((bob.machine, alice.machine, each) for each in alice.addresses),
        (alice.machine, apart.lan, apart.lan.address),
        (apart.lan, alice.machine, alice.addresses[0]),
    ):
        most = mtu - (60 if ":" in address else 40)
        assert segment_sizes(client, server, address, SERVICE + 1) == (most, most), (client.name, address)


def whole(who: Machine, address: str, size: int) -> str:
    """What ``ping`` says of packets of ``size`` bytes that nobody may fragment: the second one knows what was said of
    the first."""
    headers = 48 if ":" in address else 28
    said = who.run("ping", "-n", "-c2", "-i0.2", "-W5", "-Mdo", f"-s{size - headers}", address, check=False)
    return (said.stdout + said.stderr).replace("mtu = ", "mtu=").replace("mtu: ", "mtu=")


def links_have(machine: Machine, mtu: int) -> bool:
    lines = [line for line in machine.ip("-o", "link", "show").splitlines() if " wgo" in line]
    return bool(lines) and all(f"mtu {mtu}" in line for line in lines)
