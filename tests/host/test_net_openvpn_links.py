"""Links that OpenVPN carries, with real packets and the real openvpn, between hosts of one installation."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from django.conf import LazySettings

from servers.hostnet.state import Code
from servers.models import Carrier, Host, Route, ServerLink
from tests.host import test_end_to_end as one_host
from tests.host.joined import Installation, Joined, installation
from tests.host.linked import LAB_GATEWAY, OFFICE_GATEWAY, SERVICE, Flow, Linked, linked
from tests.lab import NEVER, Capture, Echo, Machine

pytestmark = [pytest.mark.host, pytest.mark.django_db(transaction=True)]


@dataclass
class Carried:
    """Office is on the control side's machine, Lab on Berlin's, with ``lan`` behind that. They share no host."""

    world: Installation
    berlin: Joined
    scene: Linked
    lan: Machine

    def link(self) -> ServerLink:
        row = ServerLink(
            first=self.scene.office.server, second=self.scene.lab.server, carrier=Carrier.OPENVPN, port=1195
        )
        row.full_clean()
        row.save()
        return row

    def conditions(self) -> set[str]:
        return {each["code"] for host in Host.objects.all() for each in host.conditions}


@pytest.fixture
def carried(transactional_db: None, settings: LazySettings) -> Iterator[Carried]:
    with installation(settings) as world, contextlib.ExitStack() as echoes:
        berlin = world.add("Berlin")
        world.join(berlin)
        office = one_host.office(world.lab, world.stack, world.control)
        with linked(office, berlin.host) as scene:
            lan = world.lab.add_lan(berlin.machine, 51, routed=True)
            for network, nat in (("10.51.0.0/24", False), ("2001:db8:51::/64", True)):
                row = Route(server=scene.lab.server, network=network, nat=nat)
                row.full_clean(meant=["documentation_network"])
                row.save()
            for machine, address in ((lan, "0.0.0.0"), (lan, "::"), (office.lan, "0.0.0.0")):
                echoes.enter_context(Echo(machine, address, SERVICE))
            yield Carried(world, berlin, scene, lan)


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


def test_clients_networks_and_routes_are_reached_until_the_link_goes(carried: Carried) -> None:
    scene, lan, alice = carried.scene, carried.lan, carried.scene.alice
    link = carried.link()
    scene.connect()
    scene.reach_each_other()
    scene.until_seen_as(alice.machine, lan.address, alice.addresses[0])
    scene.until_seen_as(alice.machine, lan.address6, "2001:db8:51::1")
    assert scene.seen_as(lan, alice.addresses[0]) == lan.address
    assert lan.ask_tcp(alice.addresses[1], SERVICE, timeout=NEVER) is None  # with NAT it only answers
    scene.until_seen_as(scene.bob.machine, scene.office.lan.address, "10.50.0.1")
    scene.wait(lambda: Code.LINK_DOWN.value not in carried.conditions())
    nothing_is_seen_on_the_way(carried)
    with_nat(carried, link)
    unprivileged_and_nothing_else_is_open(carried)
    a_dead_process_comes_back_and_the_worker_is_not_needed(carried)
    cut_by_unlinking(carried, link)


def nothing_is_seen_on_the_way(carried: Carried) -> None:
    hosts, said = (carried.world.stack.machine, carried.berlin.machine), b"nobody else reads this"
    addresses = [address for host in hosts for address in (host.address, host.address6)]
    with Capture(carried.world.lab.internet, addresses) as capture:
        for address in carried.scene.bob.addresses:
            assert carried.scene.alice.machine.ask_udp(address, SERVICE, said) is not None
    carried_by = [packet for packet in capture.packets if 1195 in packet.ports]
    assert len(carried_by) >= 4
    assert not [packet for packet in capture.packets if said in packet.body]


def with_nat(carried: Carried, link: ServerLink) -> None:
    scene = carried.scene
    link.masquerade = True
    link.save()
    for number in (0, 1):
        alice, bob, site = (each[number] for each in (scene.alice.addresses, scene.bob.addresses, scene.site_addresses))
        scene.until_seen_as(scene.alice.machine, bob, LAB_GATEWAY[number])
        scene.until_seen_as(scene.alice.machine, site, LAB_GATEWAY[number])
        scene.until_seen_as(scene.bob.machine, alice, OFFICE_GATEWAY[number])
    link.masquerade = False
    link.save()
    scene.reach_each_other()


def unprivileged_and_nothing_else_is_open(carried: Carried) -> None:
    links = carried.berlin.directory / "links"
    pid = pid_of(links)
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert set(status["Uid"].split()) == {"65534"}
    assert {status[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {"0" * 16}
    assert {path.stat().st_mode & 0o777 for path in links.glob("*.conf")} == {0o600}
    assert links.stat().st_mode & 0o777 == 0o700
    # The host at the other end has nothing for who comes through the link, and whoever is no party to it gets nowhere.
    device = next(path.stem for path in links.glob("*.conf"))
    scene, office, berlin = carried.scene, carried.world.stack.machine, carried.berlin.machine
    berlin.ip("addr", "add", "10.18.0.9/32", "dev", device)
    try:
        assert berlin.ask_tcp(OFFICE_GATEWAY[0], 53, timeout=NEVER, source="10.18.0.9") is None
        assert berlin.ask_udp(scene.alice.addresses[0], SERVICE, b"not mine", timeout=NEVER, source="10.18.0.9") is None
    finally:
        berlin.ip("addr", "del", "10.18.0.9/32", "dev", device)
    assert office.ask_tcp(carried.lan.address, SERVICE, timeout=NEVER) is None


def a_dead_process_comes_back_and_the_worker_is_not_needed(carried: Carried) -> None:
    scene, berlin = carried.scene, carried.berlin
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
    carried.world.wait(lambda: carried.world.alive(berlin))
    carried.world.wait(lambda: berlin.status().get("green"))
    assert flow.goes_on()
    assert pid_of(berlin.directory / "links") == pid
    flow.close()


def cut_by_unlinking(carried: Carried, link: ServerLink) -> None:
    scene, lan = carried.scene, carried.lan
    flows = [
        Flow(scene.alice.machine, address)
        for address in (*scene.bob.addresses, *scene.site_addresses, lan.address, lan.address6)
    ]
    assert all(flow.goes_on() for flow in flows)
    link.delete()
    for flow in flows:
        scene.until_cut(flow)
    scene.nothing_passes()
    scene.wait(lambda: pid_of(carried.berlin.directory / "links") == 0)
    scene.wait(lambda: not [*(carried.berlin.directory / "links").iterdir()])
    for machine in (carried.berlin.machine, carried.world.stack.machine):
        scene.wait(partial(without_links, machine))
        assert "32689" not in machine.ip("rule", "show")
    again = carried.link()
    scene.reach_each_other()
    again.delete()
    scene.wait(lambda: scene.seen_as(scene.alice.machine, scene.bob.addresses[0]) == "")
