"""The sweep: who is overdue is revoked, on time, for good, and at the cost of what is overdue."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import LazySettings
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext

from core.clock import moment
from core.redis_store import redis_client
from servers.models import Address, Host
from tests.concurrency import together
from tests.conftest import Clock
from tests.connection_rows import live, many, messages, reasons, with_fresh_marker
from tests.factories import Company, HostStandIn, found
from tests.protocol_client import NOW, make_request, open_answer, plaintext
from wgpeers import tasks
from wgpeers.lifecycle import ending, liveness, reaper
from wgpeers.lifecycle.liveness import Ping
from wgpeers.models import Connection, Decision, EndReason, SpentKey, State

TIMEOUT = 360


@pytest.fixture
def company(transactional_db: None, fixed_clock: Clock) -> Company:
    return found()


@pytest.fixture(autouse=True)
def remembering(real_redis: None) -> None:
    with_fresh_marker()


def test_silence_is_revoked_at_the_deadline_and_not_before(company: Company) -> None:
    (row,) = many(company, 1)
    version = Host.objects.get().version
    assert reaper.sweep(NOW + TIMEOUT - 0.001) == 0
    assert reaper.sweep(NOW + TIMEOUT) == 1
    row.refresh_from_db()
    assert (row.state, row.end_reason, row.ended, row.due) == (
        State.ENDED,
        EndReason.SILENT,
        moment(NOW + TIMEOUT),
        moment(NOW + TIMEOUT),
    )
    assert liveness.deadline(row.public_id) is None
    removals = [message for message in messages(company.host) if "connections" in message]
    assert [(each["version"], each["connections"], each["lingers"]) for each in removals] == [
        (version + 1, [row.public_id], 0)
    ]
    assert Host.objects.get().version == version + 1
    decision = Decision.objects.get()
    assert (decision.layer, decision.code, decision.allowed) == ("liveness", "silent", False)


def test_what_was_due_is_kept_apart_from_when_it_was_ended(company: Company) -> None:
    (row,) = many(company, 1)
    assert reaper.sweep(NOW + TIMEOUT + 9) == 1
    row.refresh_from_db()
    assert (row.due, row.ended) == (moment(NOW + TIMEOUT), moment(NOW + TIMEOUT + 9))


def test_a_second_sweep_finds_nothing_and_says_nothing(company: Company) -> None:
    many(company, 3)
    assert reaper.sweep(NOW + TIMEOUT) == 3
    messages(company.host)
    version = Host.objects.get().version
    assert reaper.sweep(NOW + TIMEOUT + 1) == 0
    assert messages(company.host) == []
    assert Host.objects.get().version == version
    assert Decision.objects.count() == 3


def test_a_ping_between_the_look_and_the_end_saves_the_connection(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = many(company, 1)
    look = liveness.overdue

    def look_and_be_pinged(now: float, most: int) -> list[tuple[str, float]]:
        due = look(now, most)
        liveness.write([Ping(row.public_id, now + TIMEOUT, int(now), sure=False)])
        return due

    monkeypatch.setattr(liveness, "overdue", look_and_be_pinged)
    assert reaper.sweep(NOW + TIMEOUT) == 0
    assert reasons() == {"user-0": "open"}


def test_the_revoked_key_never_comes_back(company: Company, host: HostStandIn, fixed_clock: Clock) -> None:
    _, identity = company.hire("alice")
    fields = plaintext()
    make_request(identity, fields).send()
    now = int(fixed_clock.advance(TIMEOUT))
    assert reaper.sweep(now) == 1
    ping = make_request(identity, fields | {"timestamp": now}, method="PUT", now=now)
    assert open_answer(ping.send().json(), identity, ping.box_private_key)["status"] is False
    again = make_request(identity, fields | {"timestamp": now}, now=now).send()
    assert (again.status_code, again.json()["error"]) == (409, "key_spent")
    assert SpentKey.objects.count() == 1


def test_more_than_a_batch_is_swept_in_one_go(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaper, "BATCH", 3)
    many(company, 8)
    assert reaper.sweep(NOW + TIMEOUT) == 8


def test_a_row_that_cannot_be_ended_does_not_hold_up_the_others(
    company: Company, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows = many(company, 5)
    mark_ended = ending.mark_ended

    def claim_all_but_one(row: Connection, *args: Any) -> bool:
        if row.pk == rows[2].pk:
            raise DatabaseError("broken row")
        return mark_ended(row, *args)

    monkeypatch.setattr(ending, "mark_ended", claim_all_but_one)
    assert reaper.sweep(NOW + TIMEOUT) == 4
    assert {name for name, reason in reasons().items() if reason != "silent"} == {"user-2"}
    assert f"could not end connection {rows[2].public_id}" in caplog.text
    monkeypatch.setattr(ending, "mark_ended", mark_ended)
    assert reaper.sweep(NOW + TIMEOUT + 10) == 1


def test_half_an_end_is_no_end(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails after the row was marked takes the mark back with it: the next sweep does all of it."""
    (row,) = many(company, 1)

    def fail(*args: object) -> None:
        raise DatabaseError("no decision today")

    with monkeypatch.context() as broken:
        broken.setattr("wgpeers.lifecycle.decisions.record_end", fail)
        assert reaper.sweep(NOW + TIMEOUT) == 0
    row.refresh_from_db()
    assert row.state == State.OPEN
    assert liveness.deadline(row.public_id) is not None
    assert reaper.sweep(NOW + TIMEOUT) == 1


def test_a_stale_deadline_without_a_live_row_is_dropped(company: Company) -> None:
    (row,) = many(company, 1)
    Connection.objects.update(state=State.ENDED)
    liveness.start("of a deleted row", NOW)
    assert reaper.sweep(NOW + TIMEOUT) == 0
    assert redis_client().zrange(liveness.DEADLINES, 0, -1) == [liveness.SENTINEL]
    assert not Decision.objects.exists()
    row.refresh_from_db()
    assert row.end_reason == ""


def test_a_sweep_costs_what_is_overdue_not_what_lives(company: Company) -> None:
    user, _ = company.hire("alice")
    overdue = [live(company, user, host_part=host_part) for host_part in range(2, 5)]
    with CaptureQueriesContext(connection) as few:
        assert reaper.sweep(NOW + TIMEOUT) == 3
    template = {"user": user, "user_name": "alice", "server": company.server, "host": company.host, "state": State.OPEN}
    rows = [
        Connection(
            **template, wg_public_key=str(n), host_part=10 + n, address="10.9.0.9", created=moment(NOW), device_id="d"
        )
        for n in range(1000)
    ]
    Connection.objects.bulk_create(rows)
    redis_client().zadd(liveness.DEADLINES, {row.public_id: NOW + 10 * TIMEOUT for row in rows})
    overdue = [live(company, user, host_part=host_part) for host_part in range(2, 5)]
    with CaptureQueriesContext(connection) as among_many:
        assert reaper.sweep(NOW + TIMEOUT) == 3
    assert len(among_many) == len(few) <= 12 * len(overdue)
    with CaptureQueriesContext(connection) as idle:
        assert reaper.sweep(NOW + TIMEOUT) == 0
    assert len(idle) <= 3  # sessions and pending rows, each by its index, and some rows in turn


def test_two_sweeps_at_once_end_each_connection_once(transactional_db: None, fixed_clock: Clock) -> None:
    company = found()
    many(company, 10)
    ended = together([lambda: reaper.sweep(NOW + TIMEOUT)] * 4)
    assert sum(count for count in ended if isinstance(count, int)) == 10
    assert Decision.objects.count() == 10


def test_a_session_ends_at_its_time_whatever_its_pings_say(company: Company) -> None:
    user, _ = company.hire("alice")
    row = live(company, user, session_ends=moment(NOW + 100))
    liveness.write([Ping(row.public_id, NOW + 9999, NOW + 99, sure=False)])
    assert reaper.sweep(NOW + 99.9) == 0
    assert reaper.sweep(NOW + 100) == 1
    row.refresh_from_db()
    assert (row.end_reason, row.due) == ("session_timeout", moment(NOW + 100))
    assert messages(company.host, "hostnet.remove_peers")[0]["connections"] == [row.public_id]


def test_a_connect_on_a_server_with_session_timeout_has_its_end(company: Company, host: HostStandIn) -> None:
    company.server.session_timeout = 3600
    company.server.save()
    make_request(company.hire("alice")[1], plaintext()).send()
    assert Connection.objects.get().session_ends == moment(NOW + 3600)


@pytest.mark.parametrize("ping_timeout", [360, 15])
def test_what_no_host_confirmed_is_ended_and_its_key_is_not_spent(
    company: Company, settings: LazySettings, ping_timeout: int
) -> None:
    """The web was killed in the middle of a connect."""
    settings.PENDING_TIMEOUT = 30.0
    company.server.ping_timeout = ping_timeout
    company.server.multi_device = True
    company.server.save()
    user, _ = company.hire("alice")
    static = live(company, user, state=State.PENDING)
    Address.objects.create(server=company.server, host_part=50, user=user, dynamic=True)
    dynamic = live(company, user, state=State.PENDING, host_part=50)
    assert reaper.sweep(NOW + min(ping_timeout, 29.9) - 0.1) == 0
    assert reaper.sweep(NOW + 30) == 2
    assert set(Connection.objects.values_list("end_reason", flat=True)) == {"unconfirmed"}
    assert not SpentKey.objects.exists()
    assert Address.objects.get(host_part=50).user is None
    assert Address.objects.get(host_part=static.host_part).user == user
    told = {name for message in messages(company.host, "hostnet.remove_peers") for name in message["connections"]}
    assert told == {static.public_id, dynamic.public_id}
    assert Decision.objects.filter(layer="host", code="unconfirmed").count() == 2


def test_a_connection_confirmed_at_the_last_moment_is_not_called_unconfirmed(company: Company) -> None:
    row = live(company, company.hire("alice")[0], state=State.PENDING)
    stale = Connection.objects.select_related("server").get()
    Connection.objects.update(state=State.OPEN)
    assert ending.end([stale], EndReason.UNCONFIRMED, NOW + 31) == 0
    row.refresh_from_db()
    assert row.state == State.OPEN
    assert SpentKey.objects.exists()


def test_without_redis_a_sweep_revokes_nobody_and_is_logged(
    company: Company, settings: LazySettings, tmp_path: Any, caplog: pytest.LogCaptureFixture, fixed_clock: Clock
) -> None:
    many(company, 2)
    fixed_clock.advance(10 * TIMEOUT)
    settings.REDIS_URL = f"unix://{tmp_path}/nobody.sock?db=0"
    tasks.sweep()
    assert "no sweep: Redis is away" in caplog.text
    assert set(reasons().values()) == {"open"}


def test_a_dynamic_address_returns_with_the_sweep(company: Company) -> None:
    user, _ = company.hire("alice")
    Address.objects.create(server=company.server, host_part=60, user=user, dynamic=True)
    live(company, user, host_part=60)
    assert reaper.sweep(NOW + TIMEOUT) == 1
    address = Address.objects.get(host_part=60)
    assert (address.user, address.dynamic) == (None, False)
