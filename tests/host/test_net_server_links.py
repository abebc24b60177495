"""Linked servers with real packets: both on one host, and on two hosts that reach each other by the mesh."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from django.conf import LazySettings

from servers.models import Route, ServerLink
from tests.conftest import send_celery_to
from tests.host import test_end_to_end as one_host
from tests.host.linked import LAB_GATEWAY, OFFICE_GATEWAY, SERVICE, Linked, linked, on_two_hosts, route_to_lan
from tests.lab import NEVER, Echo, Lab, Machine, RedisServer
from tests.processes import environment
from tests.stack import Stack

pytestmark = [pytest.mark.host, pytest.mark.long, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def shared(transactional_db: None, settings: LazySettings) -> Iterator[Linked]:
    """Both servers on one host."""
    with Lab() as lab, RedisServer() as server:
        settings.REDIS_URL = server.url
        send_celery_to(server.url)
        with Stack(lab.add_host(), server, environment()) as stack:
            world = one_host.build(lab, stack)
            try:
                with linked(world, world.host) as scene:
                    yield scene
            finally:
                if stack.worker is not None:
                    stack.worker.kill()


def test_on_one_host_clients_networks_and_routes_are_reached_until_the_link_goes(shared: Linked) -> None:
    host = shared.office.stack.machine
    plain = shared.office.lab.add_lan(host, 51, routed=True)
    route_to_lan(shared.lab.server)
    link = shared.link()
    shared.connect()
    shared.reach_each_other()
    with contextlib.ExitStack() as echoes:
        for machine in (plain, shared.office.lan):
            for address in ("0.0.0.0", "::"):
                echoes.enter_context(Echo(machine, address, SERVICE))
        # Each reaches the other's routes, as its own clients do: with NAT and without.
        assert shared.seen_as(shared.alice.machine, plain.address) == shared.alice.addresses[0]
        assert shared.seen_as(shared.alice.machine, plain.address6) == "2001:db8:51::1"
        assert shared.seen_as(shared.bob.machine, shared.office.lan.address) == "10.50.0.1"
        assert shared.seen_as(plain, shared.alice.addresses[0]) == plain.address
        shared.in_the_gateways_name(link)
        assert shared.seen_as(shared.alice.machine, plain.address) == "10.51.0.1"
        shared.in_their_own_names(link)
        nobody_else_is_let_through(shared)
        cut_by_unlinking(shared, link, plain.address, plain.address6)
        for address in (plain.address, plain.address6):
            assert shared.alice.machine.ask_tcp(address, SERVICE, timeout=NEVER) is None
        assert plain.ask_tcp(shared.alice.addresses[0], SERVICE, timeout=NEVER) is None
        # What is each server's own goes on.
        assert shared.seen_as(shared.alice.machine, shared.office.lan.address) == "10.50.0.1"
        assert shared.seen_as(shared.bob.machine, plain.address) == shared.bob.addresses[0]


def nobody_else_is_let_through(scene: Linked) -> None:
    """Neither in a name that is not theirs, nor from outside, nor where clients are kept apart."""
    machine, bob = scene.alice.machine, scene.bob.addresses[0]
    machine.ip("addr", "add", "10.9.0.200/32", "dev", "lo")
    assert machine.ask_udp(bob, SERVICE, b"mine") is not None
    assert machine.ask_udp(bob, SERVICE, b"not mine", timeout=NEVER, source="10.9.0.200") is None
    seen = {each for echo in scene.echoes for each in echo.seen}
    assert (b"mine" in seen, b"not mine" in seen) == (True, False)
    machine.ip("addr", "del", "10.9.0.200/32", "dev", "lo")
    stranger = scene.office.lab.add_client()
    stranger.ip("route", "add", "10.19.0.0/24", "via", scene.office.stack.machine.address)
    assert stranger.ask_tcp(bob, SERVICE, timeout=NEVER) is None
    scene.lab.server.refresh_from_db()
    scene.lab.server.inter_client = False
    scene.lab.server.save()
    scene.wait(lambda: machine.ask_tcp(bob, SERVICE, timeout=NEVER) is None)
    # Networks behind clients are not clients.
    for site, alice in zip(scene.site_addresses, scene.alice.addresses, strict=True):
        assert scene.seen_as(machine, site) == alice
        assert scene.seen_as(scene.site, alice) == site
    scene.lab.server.inter_client = True
    scene.lab.server.save()
    scene.reach_each_other()


def cut_by_unlinking(scene: Linked, link: ServerLink, *routed: str) -> None:
    """Connections that are open end with the link, and all of it comes back with a new one, with nobody connecting
    anew."""
    scene.cut_by_unlinking(link, *routed)
    again = scene.link()
    scene.reach_each_other()
    again.delete()
    scene.wait(lambda: scene.seen_as(scene.alice.machine, scene.bob.addresses[0]) == "")
    scene.nothing_passes()


def names_are_known_where_they_are_wanted(scene: Linked, link: ServerLink) -> None:
    bob, alice = scene.bob.addresses[0], scene.alice.addresses[0]
    acme = scene.alice.user.organization.name.lower().replace(" ", "-")
    assert scene.knows(scene.bob, LAB_GATEWAY[0], "bob.labs.lab", bob)
    assert not scene.knows(scene.alice, OFFICE_GATEWAY[0], "bob.labs.lab", bob)
    link.names = True
    link.save()
    scene.wait(lambda: scene.knows(scene.alice, OFFICE_GATEWAY[0], "bob.labs.lab", bob))
    scene.wait(lambda: scene.knows(scene.bob, LAB_GATEWAY[0], f"alice.{acme}.vpn", alice))
    # Who leaves is known no more, and who comes is known at once.
    scene.bob.peer.end()
    scene.wait(lambda: not scene.knows(scene.alice, OFFICE_GATEWAY[0], "bob.labs.lab", bob))
    scene.bob.peer.up()
    scene.wait(lambda: scene.knows(scene.alice, OFFICE_GATEWAY[0], "bob.labs.lab", bob))
    link.names = False
    link.save()
    scene.wait(lambda: not scene.knows(scene.alice, OFFICE_GATEWAY[0], "bob.labs.lab", bob))


def test_on_one_host_names_are_known_where_they_are_wanted(shared: Linked) -> None:
    link = shared.link()
    shared.connect()
    names_are_known_where_they_are_wanted(shared, link)


def test_on_two_hosts_clients_networks_and_routes_are_reached_by_the_mesh(
    transactional_db: None, settings: LazySettings
) -> None:
    with on_two_hosts(settings) as apart, contextlib.ExitStack() as echoes:
        scene, lan = apart.scene, apart.lan
        # A network that Lab's clients know by other addresses. Its machines see the real ones alone.
        real = apart.world.lab.add_lan(apart.berlin.machine, 61, routed=True)
        mapped = Route(server=scene.lab.server, network="10.60.0.0/24", netmap="10.61.0.0/24", nat=False)
        mapped.full_clean()
        mapped.save()
        echoes.enter_context(Echo(real, "0.0.0.0", SERVICE))
        link = scene.link()
        scene.connect()
        live = scene.lab.live(scene.bob.user)
        assert live is not None
        assert live.host_id == apart.berlin.host.pk
        scene.reach_each_other()
        routes_are_reached_by_a_host_of_the_other(scene, lan)
        mapped_networks_are_reached_by_their_other_addresses(scene, mapped, real)
        scene.in_the_gateways_name(link)
        scene.until_seen_as(scene.alice.machine, lan.address, "10.51.0.1")
        scene.in_their_own_names(link)
        scene.until_seen_as(scene.alice.machine, lan.address, scene.alice.addresses[0])
        names_are_known_where_they_are_wanted(scene, link)
        scene.wait(scene.bob.peer.connected)
        cut_by_unlinking(scene, link, lan.address, lan.address6)
        for address in (lan.address, lan.address6):
            assert scene.alice.machine.ask_tcp(address, SERVICE, timeout=NEVER) is None
        assert not apart.world.stack.machine.run("ip", "rule", "show", "pref", "32690").stdout
        assert scene.seen_as(scene.bob.machine, lan.address) == scene.bob.addresses[0]


def mapped_networks_are_reached_by_their_other_addresses(scene: Linked, route: Route, real: Machine) -> None:
    """As by the server's own clients; without NAT both may begin."""
    alice, address = scene.alice, real.address.replace("10.61.", "10.60.")
    scene.until_seen_as(alice.machine, address, alice.addresses[0])
    assert scene.seen_as(scene.bob.machine, address) == scene.bob.addresses[0]
    assert scene.seen_as(real, alice.addresses[0]) == address
    route.nat = True
    route.save()
    scene.until_seen_as(alice.machine, address, "10.61.0.1")
    assert real.ask_tcp(alice.addresses[0], SERVICE, timeout=NEVER) is None


def routes_are_reached_by_a_host_of_the_other(scene: Linked, lan: Machine) -> None:
    """Through the mesh, and out where the other server's own clients go out. Office's host itself is sent nowhere."""
    alice, host = scene.alice, scene.office.stack.machine
    scene.until_seen_as(alice.machine, lan.address, alice.addresses[0])
    scene.until_seen_as(alice.machine, lan.address6, "2001:db8:51::1")
    assert scene.seen_as(lan, alice.addresses[0]) == lan.address
    assert lan.ask_tcp(alice.addresses[1], SERVICE, timeout=NEVER) is None  # with NAT it only answers
    scene.until_seen_as(scene.bob.machine, scene.office.lan.address, "10.50.0.1")
    assert "wgm0" not in host.ip("route", "get", lan.address)
    assert host.ask_tcp(lan.address, SERVICE, timeout=NEVER) is None
    # Somebody takes the way away, and it is put back.
    host.ip("rule", "del", "pref", "32690")
    scene.wait(lambda: "lookup" in host.ip("rule", "show", "pref", "32690"))
    scene.until_seen_as(alice.machine, lan.address, alice.addresses[0])
