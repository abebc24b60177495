"""Who has come through a tunnel, by the addresses of a connection's two ends."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext

from servers.gateways import LOOK_AGAIN, READ_AGAIN, Gateways
from servers.models import Server
from tests.conftest import Clock
from tests.factories import Company

pytestmark = pytest.mark.django_db


@pytest.fixture
def gateways(company: Company, fixed_clock: Clock) -> Gateways:
    """Of the company's server, whose tunnel network is 10.9.0.0/24, and whose IPv6 one is fd09::/64."""
    Server.objects.update(ipv6=True, network6="fd09::/64")
    return Gateways()


@pytest.mark.parametrize(
    ("source", "local", "admitted"),
    [
        ("10.9.0.2", "10.9.0.1", True),
        ("fd09::2", "fd09::1", True),
        ("10.9.0.2", "198.51.100.7", False),  # the host's public address
        ("198.51.100.9", "10.9.0.1", False),  # a neighbour who sends packets for the gateway's address
        ("10.9.1.2", "10.9.0.1", False),
        ("10.9.0.2", "fd09::1", False),
        ("10.8.0.2", "10.8.0.1", False),  # not what clients have in their tunnels
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "10.9.0.1", False),
        ("10.9.0.2", "127.0.0.1", False),
        ("", "10.9.0.1", False),
        ("10.9.0.2", "", False),
        ("", "", False),
        ("nobody", "10.9.0.1", False),
    ],
)
def test_who_comes_from_a_tunnel_network_to_its_gateway_is_admitted_and_nobody_else(
    gateways: Gateways, source: str, local: str, admitted: bool
) -> None:
    assert gateways.admits(source, local) is admitted


def test_stopped_server_admits_nobody_once_that_is_read(gateways: Gateways, fixed_clock: Clock) -> None:
    assert gateways.admits("10.9.0.2", "10.9.0.1")
    Server.objects.update(started=False)
    fixed_clock.advance(READ_AGAIN)
    assert not gateways.admits("10.9.0.2", "10.9.0.1")


def test_server_that_was_started_just_now_is_known(gateways: Gateways, fixed_clock: Clock) -> None:
    Server.objects.update(started=False)
    assert not gateways.admits("10.9.0.2", "10.9.0.1")
    Server.objects.update(started=True)
    fixed_clock.advance(LOOK_AGAIN)
    assert gateways.admits("10.9.0.2", "10.9.0.1")


def test_pings_and_strangers_cost_next_to_nothing(gateways: Gateways) -> None:
    assert gateways.admits("10.9.0.2", "10.9.0.1")
    with CaptureQueriesContext(connection) as queries:
        for number in range(2, 200):
            assert gateways.admits(f"10.9.0.{number}", "10.9.0.1")
            assert not gateways.admits(f"192.0.2.{number}", "10.9.0.1")
    assert len(queries) == 0


def test_without_the_database_tunnels_go_on_and_strangers_stay_out(
    gateways: Gateways, fixed_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise DatabaseError

    assert gateways.admits("10.9.0.2", "10.9.0.1")
    with monkeypatch.context() as patch:
        patch.setattr(Server.objects, "filter", refuse)
        fixed_clock.advance(10 * READ_AGAIN)
        assert gateways.admits("10.9.0.2", "10.9.0.1")
        assert not gateways.admits("192.0.2.9", "10.9.0.1")
        assert not Gateways().admits("10.9.0.2", "10.9.0.1")


@pytest.fixture
def forwarded(company: Company, fixed_clock: Clock) -> Gateways:
    """One host, fd00::7 in the mesh, carries the company's server; another one, fd00::8, another server."""
    Server.objects.update(ipv6=True, network6="fd09::/64")
    other = Server.objects.create(name="Other", network="10.18.0.0/24", wg_network="10.19.0.0/24", started=True)
    return Gateways(lambda: [("fd00::7", company.server.pk), ("fd00::8", other.pk)])


@pytest.mark.parametrize(
    ("host", "source", "local", "believed"),
    [
        ("fd00::7", "10.9.0.2", "10.9.0.1", True),
        ("fd00:0::7", "fd09::2", "fd09::1", True),  # however it is written
        ("fd00::8", "10.19.0.2", "10.19.0.1", True),
        ("fd00::8", "10.9.0.2", "10.9.0.1", False),  # not its server
        ("fd00::9", "10.9.0.2", "10.9.0.1", False),  # a host that carries nothing, or nobody
        ("10.9.0.3", "10.9.0.2", "10.9.0.1", False),  # a client, in another one's name
        ("127.0.0.1", "10.9.0.2", "10.9.0.1", False),
        ("fd00::7", "10.19.0.2", "10.9.0.1", False),
        ("fd00::7", "127.0.0.1", "127.0.0.1", False),
        ("fd00::7", "", "", False),
        ("", "10.9.0.2", "10.9.0.1", False),
    ],
)
def test_a_host_is_believed_for_the_servers_that_it_carries(
    forwarded: Gateways, host: str, source: str, local: str, believed: bool
) -> None:
    assert forwarded.forwards(host, source, local) is believed


def test_without_a_mesh_nobody_forwards(gateways: Gateways) -> None:
    assert not gateways.forwards("fd00::7", "10.9.0.2", "10.9.0.1")


def test_a_host_that_carries_a_server_no_more_is_believed_no_more(company: Company, fixed_clock: Clock) -> None:
    carried = [("fd00::7", company.server.pk)]
    gateways = Gateways(lambda: carried)
    assert gateways.forwards("fd00::7", "10.9.0.2", "10.9.0.1")
    carried.clear()
    fixed_clock.advance(READ_AGAIN)
    assert not gateways.forwards("fd00::7", "10.9.0.2", "10.9.0.1")
