"""Who serves a network behind clients, as connections come and go."""

from __future__ import annotations

from typing import Any

from core.clock import moment
from servers.models import Address, ClientNetwork
from tests.conftest import Clock
from tests.connection_rows import live, queued
from tests.factories import Company, add_host
from tests.protocol_client import NOW
from users.models import VpnUser
from wgpeers import tasks
from wgpeers.fleet import desired
from wgpeers.lifecycle import site_failover

from .rows import OFFICE, behind, committed, converged, end, saved, serves, with_ipv6


def test_primary_and_standby(company: Company, alice: VpnUser, bob: VpnUser) -> None:
    """The standby serves while the primary is away, and until it has been back for long enough."""
    saved(behind(alice))
    saved(behind(bob, priority=2))
    site_failover.elect_all(NOW)
    assert serves() == "nobody"
    live(company, bob, NOW)
    site_failover.elect_all(NOW)
    assert serves() == "bob"
    first = live(company, alice, NOW + 10)
    site_failover.elect_all(NOW + 39)
    assert serves() == "bob"
    site_failover.elect_all(NOW + 40)
    assert serves() == "alice"
    end(first, NOW + 50)
    assert serves() == "bob"


@committed
def test_a_connection_that_ends_hands_over_in_the_same_transaction(
    company: Company, alice: VpnUser, bob: VpnUser
) -> None:
    saved(behind(alice))
    saved(behind(bob, priority=2))
    far = add_host(company.server, "gate-2")
    mine, _ = live(company, alice), live(company, bob, host=far)
    site_failover.elect_all(NOW)
    far.refresh_from_db()
    before = far.version
    queued()
    end(mine, NOW + 1)
    assert serves() == "bob"
    far.refresh_from_db()
    assert far.version > before
    # To each host of the server the network is somewhere else now.
    assert converged() == {company.host.pk, far.pk}
    state = desired.state_of(far.pk)
    assert state is not None
    assert state.interfaces[0].peers[0].networks == (OFFICE,)


def test_an_end_of_which_nobody_took_the_network_leaves_it_to_nobody(company: Company, alice: VpnUser) -> None:
    saved(behind(alice))
    mine = live(company, alice)
    site_failover.elect_all(NOW)
    assert serves() == "alice"
    end(mine, NOW + 1)
    assert serves() == "nobody"


def test_of_several_devices_the_one_with_the_static_address_serves(company: Company, alice: VpnUser) -> None:
    company.server.multi_device = True
    company.server.save()
    saved(behind(alice))
    extra = Address.objects.create(server=company.server, host_part=77, user=alice, dynamic=True)
    second = live(company, alice, device_id="phone", host_part=extra.host_part)
    site_failover.elect_all(NOW)
    assert serves() == "nobody"
    first = live(company, alice)
    site_failover.elect_all(NOW)
    assert serves() == "alice"
    state = desired.state_of(company.host.pk)
    assert state is not None
    networks = {peer.connection: peer.networks for peer in state.interfaces[0].peers}
    assert networks == {first.public_id: (OFFICE,), second.public_id: ()}
    end(first, NOW + 1)
    assert serves() == "nobody"


def test_the_sweep_decides_too_also_while_redis_is_away(
    company: Company, alice: VpnUser, settings: Any, fixed_clock: Clock
) -> None:
    saved(behind(alice))
    live(company, alice)
    settings.REDIS_URL = "unix:///nowhere/redis.sock?db=0"
    tasks.sweep()
    assert serves() == "alice"


def test_nothing_is_written_or_sent_when_nothing_changes(
    company: Company, alice: VpnUser, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(1):
        site_failover.elect_all(NOW)
    saved(behind(alice))
    live(company, alice)
    site_failover.elect_all(NOW)
    queued()
    with django_assert_num_queries(2) as queries:
        site_failover.elect_all(NOW + 10)
    assert all(query["sql"].startswith("SELECT") for query in queries.captured_queries)
    assert queued() == []


def test_a_server_whose_ipv6_was_turned_off_routes_none(company: Company, alice: VpnUser) -> None:
    with_ipv6(company)
    saved(behind(alice))
    saved(behind(alice, "fd77::/64", probe_address="fd77::1"))
    live(company, alice)
    site_failover.elect_all(NOW)
    seen = []
    for ipv6 in (True, False):
        company.server.ipv6 = ipv6
        company.server.save()
        state = desired.state_of(company.host.pk)
        assert state is not None
        (peer,) = state.interfaces[0].peers
        seen.append((peer.networks, len(peer.probes)))
    assert seen == [((OFFICE, "fd77::/64", "fd77::1/128"), 1), ((OFFICE,), 0)]


# Edits


def test_an_edited_row_is_decided_anew(company: Company, alice: VpnUser, bob: VpnUser) -> None:
    row = saved(behind(alice, probe_address="192.168.77.1"))
    other = saved(behind(bob, "192.168.88.0/24"))
    live(company, alice), live(company, bob)
    site_failover.elect_all(NOW)
    ClientNetwork.objects.update(probe_ok=True, probe_changed=moment(NOW))
    # To a network that somebody serves: without having it taken from them.
    row.refresh_from_db()
    row.network, row.probe_address, row.priority = other.network, "192.168.88.9", 2
    saved(row)
    row.refresh_from_db()
    assert (row.active, row.probe_ok, row.probe_changed) == (False, None, None)
    tasks.enforce()
    assert [each.user.name for each in ClientNetwork.objects.filter(active=True)] == ["bob"]
    # A comment changes nothing.
    other.refresh_from_db()
    other.comment = "warehouse"
    saved(other)
    other.refresh_from_db()
    assert (other.active, other.probe_ok) == (True, True)
    # Of another probe address nothing is known.
    other.probe_address = "192.168.88.8"
    saved(other)
    other.refresh_from_db()
    assert (other.active, other.probe_ok) == (True, None)


def test_a_form_that_was_open_meanwhile_takes_the_network_from_nobody(company: Company, alice: VpnUser) -> None:
    row = saved(behind(alice))
    late = ClientNetwork.objects.get(pk=row.pk)
    live(company, alice)
    site_failover.elect_all(NOW)
    late.comment = "late"
    late.save()
    assert serves() == "alice"


@committed
def test_a_deleted_row_leaves_its_network_to_the_standby(company: Company, alice: VpnUser, bob: VpnUser) -> None:
    row = saved(behind(alice))
    saved(behind(bob, priority=2))
    live(company, alice), live(company, bob)
    site_failover.elect_all(NOW)
    row.delete()
    assert ("wgpeers.enforce", []) in queued()
    tasks.enforce()
    assert serves() == "bob"
