"""When clients last lost a host and came back elsewhere, as it is found in the connections that are kept."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from core.clock import moment
from servers.models import Host
from tests.admin_site import staff
from tests.conftest import Clock
from tests.factories import Company, add_host, silence
from tests.protocol_client import Identity
from tests.wgpeers.lifecycle.test_choosing import landed, standing_in
from users.models import VpnUser
from wgpeers.lifecycle import failovers
from wgpeers.lifecycle.ending import end
from wgpeers.models import Connection, EndReason

pytestmark = pytest.mark.django_db(transaction=True)
DAY = 86_400


@pytest.fixture
def second(company: Company) -> Host:
    return add_host(company.server, "gate-2", address="192.0.2.2", priority=2)


def hire(company: Company, count: int) -> list[tuple[VpnUser, Identity]]:
    return [company.hire(f"user-{number}") for number in range(count)]


def connect(person: tuple[VpnUser, Identity], clock: Clock) -> str:
    return landed(person[1], device_id="laptop", now=int(clock.now))


def test_clients_that_came_back_elsewhere_are_a_failover(company: Company, second: Host, fixed_clock: Clock) -> None:
    people = hire(company, 3)
    with standing_in(company.host, second):
        assert [connect(each, fixed_clock) for each in people] == ["gate-1"] * 3
        assert failovers.last_of(company.host, fixed_clock.now) is None
        fixed_clock.advance(100)
        silence(company.host)
        began = fixed_clock.now
        for each in people[:2]:
            fixed_clock.advance(5)
            assert connect(each, fixed_clock) == "gate-2"
    found = failovers.last_of(company.host, fixed_clock.now)
    assert found is not None
    assert (found.first, found.last) == (moment(began + 5), moment(began + 10))
    assert (found.had, found.moved, dict(found.back), found.again) == (3, 2, {"gate-2": 2}, None)
    assert failovers.last_of(second, fixed_clock.now) is None


def test_who_comes_back_to_the_host_itself_and_who_was_sent_away_are_none(
    company: Company, second: Host, fixed_clock: Clock
) -> None:
    alice, bob = hire(company, 2)
    with standing_in(company.host, second):
        Host.objects.filter(pk=second.pk).update(draining=True)
        for _ in range(2):
            assert [connect(each, fixed_clock) for each in (alice, bob)] == ["gate-1"] * 2
        assert end(Connection.objects.filter(ended=None), EndReason.DRAINED, fixed_clock.now) == 2
        Host.objects.update(draining=False)
        Host.objects.filter(pk=company.host.pk).update(draining=True)
        assert [connect(each, fixed_clock) for each in (alice, bob)] == ["gate-2"] * 2
    assert failovers.last_of(company.host, fixed_clock.now) is None


def test_one_of_many_who_moves_hides_no_failover_before(company: Company, second: Host, fixed_clock: Clock) -> None:
    people = hire(company, 5)
    with standing_in(company.host, second):
        for each in people:
            connect(each, fixed_clock)
        fixed_clock.advance(100)
        for each in people:  # each to where it is not
            assert connect(each, fixed_clock) == "gate-2"
        began = fixed_clock.now
        fixed_clock.advance(DAY)
        for each in people:
            assert connect(each, fixed_clock) == "gate-1"
        back = fixed_clock.now
        fixed_clock.advance(DAY)
        assert connect(people[0], fixed_clock) == "gate-2"
    found = failovers.last_of(company.host, fixed_clock.now)
    assert found is not None
    assert (found.first, found.moved, found.had, found.again) == (moment(began), 5, 5, moment(back))
    assert failovers.last_of(company.host, fixed_clock.now + 30 * DAY) is None


def test_it_costs_as_many_queries_however_many_came_back(
    company: Company, second: Host, fixed_clock: Clock, client: Client
) -> None:
    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert failovers.last_of(company.host, fixed_clock.now) is not None
        return len(queries)

    with standing_in(company.host, second):
        few = []
        for count in (1, 6):
            people = [company.hire(f"of-{count}-{number}") for number in range(count)]
            for _ in range(2):
                for each in people:
                    connect(each, fixed_clock)
                fixed_clock.advance(100)
            few.append(cost())
    assert few[0] == few[1]
    staff(client, superuser=True)
    shown = client.get(f"/admin/servers/host/{company.host.pk}/change/").content.decode()
    assert "6 of its 6 clients came back on other hosts (gate-2 6). None came to it since." in shown
    shown = client.get(f"/admin/servers/host/{second.pk}/change/").content.decode()
    assert "None in the last 30 days" in shown
