"""Whose peer stays for one more ping, for how long, and what its host is told of it."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection as database
from django.test.utils import CaptureQueriesContext

from core.clock import moment
from servers.hostnet.state import Peer
from servers.models import Server, ServerHost
from tests.conftest import Clock
from tests.connection_rows import live, messages
from tests.factories import Company, add_host, found
from tests.protocol_client import NOW
from wgpeers.fleet import desired
from wgpeers.lifecycle import ending
from wgpeers.models import Connection, EndReason, State

INTERVAL = 20
TIME = INTERVAL + 3
TOLD = {
    EndReason.ADMIN,
    EndReason.SESSION,
    EndReason.SIGN_IN,
    EndReason.NOT_PERMITTED,
    EndReason.MOVED,
    EndReason.ELSEWHERE,
    EndReason.DRAINED,
    EndReason.BY_USER,
    EndReason.DEVICE_REVOKED,
}


@pytest.fixture
def company(transactional_db: None, fixed_clock: Clock, real_redis: None) -> Company:
    company = found()
    Server.objects.update(ping_interval=INTERVAL)
    return company


def end(company: Company, reason: EndReason = EndReason.ADMIN, name: str = "alice", **fields: Any) -> Connection:
    row = live(company, company.hire(name)[0], version=7, **fields)
    assert ending.end([Connection.objects.select_related("server").get(pk=row.pk)], reason, NOW) == 1
    row.refresh_from_db()
    return row


def peers(company: Company) -> tuple[Peer, ...]:
    state = desired.state_of(company.host.pk)
    assert state is not None
    return tuple(peer for interface in state.interfaces for peer in interface.peers)


def times(company: Company) -> list[float]:
    return [message["lingers"] for message in messages(company.host, "hostnet.remove_peers")]


@pytest.mark.parametrize("reason", EndReason)
def test_who_may_still_be_there_to_hear_it_is_told(company: Company, reason: EndReason) -> None:
    row = end(company, reason, state=State.PENDING if reason == EndReason.UNCONFIRMED else State.OPEN)
    told = reason in TOLD
    assert times(company) == [TIME if told else 0]
    expected = Peer(row.public_id, 7, row.wg_public_key, (f"{row.address}/32",), lingers=TIME)
    assert peers(company) == ((expected,) if told else ())


def test_the_state_says_how_much_of_the_time_is_left(company: Company, fixed_clock: Clock) -> None:
    end(company)
    fixed_clock.now = NOW + 9.5
    assert [peer.lingers for peer in peers(company)] == [TIME - 9.5]
    fixed_clock.now = NOW + TIME
    assert peers(company) == ()
    fixed_clock.now = NOW - 3600  # somebody set it back
    assert [peer.lingers for peer in peers(company)] == [TIME]


def test_what_was_never_confirmed_goes_at_once(company: Company) -> None:
    end(company, EndReason.ADMIN, state=State.PENDING, opened=None)
    assert times(company) == [0]
    assert peers(company) == ()


def test_a_network_that_is_the_servers_no_more_has_no_gateway_to_ping(company: Company) -> None:
    row = live(company, company.hire("alice")[0])
    Server.objects.update(wg_network="10.77.0.0/24")
    ending.end([Connection.objects.select_related("server").get(pk=row.pk)], EndReason.MOVED, NOW)
    assert times(company) == [0]
    assert peers(company) == ()


def test_each_lingers_for_its_own_servers_interval(company: Company) -> None:
    other = Server.objects.create(
        name="Lab", network="10.18.0.0/24", wg_network="10.19.0.0/24", port=51999, started=True, ping_interval=60
    )
    other.organizations.add(company.organization)
    ServerHost.objects.create(server=other, host=company.host)
    rows = [live(company, company.hire("alice")[0]), live(company, company.hire("bob")[0], server=other)]
    messages(company.host)
    ending.end(Connection.objects.select_related("server").order_by("pk"), EndReason.ADMIN, NOW)
    told = {message["connections"][0]: message["lingers"] for message in messages(company.host)}
    assert told == {rows[0].public_id: TIME, rows[1].public_id: 63}
    assert {peer.connection: peer.lingers for peer in peers(company)} == told


def test_another_host_hears_nothing_of_it(company: Company) -> None:
    other = add_host(company.server, "gate-2", address="192.0.2.2")
    end(company)
    state = desired.state_of(other.pk)
    assert state is not None
    assert [interface.peers for interface in state.interfaces] == [()]


def test_a_long_history_costs_a_state_nothing(company: Company) -> None:
    row = end(company)
    rows = [
        Connection(
            user_name="gone",
            server=company.server,
            host=company.host,
            state=State.ENDED,
            end_reason=EndReason.ADMIN,
            host_part=9,
            address="10.9.0.9",
            created=moment(NOW - 1000),
            opened=moment(NOW - 1000),
            ended=moment(NOW - 900 + number / 100),
        )
        for number in range(500)
    ]
    Connection.objects.bulk_create(rows)
    with CaptureQueriesContext(database) as queries:
        assert [peer.connection for peer in peers(company)] == [row.public_id]
    (asked,) = [query["sql"] for query in queries if '"ended" >' in query["sql"]]
    with database.cursor() as cursor:
        cursor.execute(("EXPLAIN " if database.vendor == "postgresql" else "EXPLAIN QUERY PLAN ") + asked)
        plan = str(cursor.fetchall())
    assert "ended_of_host" in plan or database.vendor == "postgresql"  # which judges by how many rows there are
