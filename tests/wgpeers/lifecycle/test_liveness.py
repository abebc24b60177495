"""Ping deadlines in Redis: what moves them, what does not, and what happens when Redis loses its memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import redis
from django.conf import LazySettings
from hypothesis import given
from hypothesis import strategies as st

from core.redis_store import RedisUnavailable, redis_client
from tests.conftest import Clock
from tests.connection_rows import live, many, reasons, with_fresh_marker
from tests.factories import Company, HostStandIn, found
from tests.protocol_client import NOW, make_request, open_answer, plaintext
from wgpeers.lifecycle import liveness, reaper
from wgpeers.lifecycle.keepalive import keepalive
from wgpeers.lifecycle.liveness import Ping
from wgpeers.models import Connection, State

TIMEOUT = 360


@pytest.fixture
def company(db: None, fixed_clock: Clock) -> Company:
    return found()


def test_what_is_overdue_comes_longest_overdue_first_and_no_more_than_asked() -> None:
    for number, name in enumerate("edcba"):
        liveness.start(name, NOW + number)
    assert liveness.overdue(NOW - 1, 10) == []
    assert liveness.overdue(NOW, 10) == [("e", NOW)]
    assert [name for name, _ in liveness.overdue(NOW + 9, 3)] == ["e", "d", "c"]


def test_a_ping_moves_the_deadline_unless_it_is_an_old_one() -> None:
    def write(deadline: float, timestamp: int) -> float | None:
        assert liveness.write([Ping("a", deadline, timestamp, sure=False)]) == []
        return liveness.deadline("a")

    liveness.start("a", NOW)
    assert liveness.awaits_first_ping("a", NOW - 1)
    assert not liveness.awaits_first_ping("a", NOW)
    assert write(NOW + 370, NOW + 10) == NOW + 370
    assert not liveness.awaits_first_ping("a", NOW)
    assert write(NOW + 900, NOW + 10) == NOW + 370  # a replay
    assert write(NOW + 900, NOW + 9) == NOW + 370  # a straggler
    assert write(NOW + 380.25, NOW + 20) == NOW + 380.25


def test_only_a_sure_ping_gives_a_deadline_to_a_connection_that_has_none() -> None:
    assert liveness.write([Ping("a", NOW, NOW, sure=False), Ping("b", NOW + 1, NOW, sure=True)]) == ["a"]
    assert liveness.deadlines(["a", "b"]) == {"b": NOW + 1}


@given(st.data())
def test_pings_that_are_written_at_once_count_as_if_each_had_been_written(data: st.DataObject) -> None:
    """Whatever their order, of several connections, some without a deadline."""
    pings = data.draw(
        st.lists(
            st.builds(
                Ping,
                st.sampled_from("abc"),
                st.sampled_from([NOW + 1.0, NOW + 2.5, NOW + 3.0]),
                st.integers(1, 9),
                st.booleans(),
            )
        )
    )
    known = data.draw(st.sets(st.sampled_from("abc")))

    def written(messages: list[list[Ping]]) -> dict[str, float]:
        liveness.forget("abc")
        for name in known:
            liveness.start(name, NOW)
        for message in messages:
            liveness.write(message)
        return liveness.deadlines(list("abc"))

    merged: dict[str, Ping] = {}
    for ping in pings:
        merged[ping.connection] = ping.after(merged.get(ping.connection))
    # One that is sure vouches for those before it as well, which alone would not have counted.
    sure = {ping.connection for ping in pings if ping.sure}
    one_by_one = [[replace(ping, sure=ping.connection in sure)] for ping in pings]
    assert written([list(merged.values())]) == written(one_by_one)


def test_more_pings_than_fit_one_message_are_all_written() -> None:
    many = [Ping(f"c{number}", NOW + number, NOW, sure=number % 2 == 0) for number in range(1201)]
    assert len(liveness.write(many)) == 600
    assert redis_client().zcard(liveness.DEADLINES) == 601


def test_what_is_forgotten_is_gone() -> None:
    liveness.start("a", NOW)
    liveness.write([Ping("a", NOW, NOW, sure=False)])
    liveness.forget(["a", "b"])
    liveness.forget([])
    assert (liveness.deadline("a"), redis_client().hexists(liveness.PINGS, "a")) == (None, False)
    assert not liveness.awaits_first_ping("a", NOW)
    assert liveness.deadlines(["a"]) == {}
    assert liveness.deadlines([]) == {}


def test_without_redis_it_is_store_down(settings: LazySettings, tmp_path: object) -> None:
    settings.REDIS_URL = f"unix://{tmp_path}/nobody.sock?db=0"
    for call in (
        lambda: liveness.start("a", NOW),
        lambda: liveness.write([Ping("a", NOW, NOW, sure=False)]),
        lambda: liveness.awaits_first_ping("a", NOW),
        lambda: liveness.deadlines(["a"]),
    ):
        with pytest.raises(RedisUnavailable):
            call()
    with pytest.raises(redis.RedisError):
        reaper.sweep(NOW)


def test_pings_over_http_keep_a_connection_for_longer_than_the_timeout(
    company: Company, host: HostStandIn, fixed_clock: Clock
) -> None:
    _, identity = company.hire("alice")
    fields = plaintext()
    make_request(identity, fields).send()
    with_fresh_marker()
    for _ in range(40):
        now = int(fixed_clock.advance(10))
        request = make_request(identity, fields | {"timestamp": now}, method="PUT", now=now)
        assert open_answer(request.send().json(), identity, request.box_private_key)["status"] is True
        keepalive.write()
        assert reaper.sweep(now) == 0
    assert reaper.sweep(fixed_clock.advance(TIMEOUT - 1)) == 0
    assert reaper.sweep(fixed_clock.advance(1)) == 1
    assert reasons() == {"alice": "silent"}


def test_another_users_ping_keeps_nobody_alive(company: Company, host: HostStandIn, fixed_clock: Clock) -> None:
    (_, alice), (_, bob) = company.hire("alice"), company.hire("bob")
    of_alice = plaintext()
    make_request(alice, of_alice).send()
    make_request(bob, plaintext()).send()
    (row,) = Connection.objects.filter(wg_public_key=of_alice["wg_public_key"])
    before = liveness.deadline(row.public_id)
    now = int(fixed_clock.advance(100))
    request = make_request(bob, of_alice | {"timestamp": now}, method="PUT", now=now)
    assert open_answer(request.send().json(), bob, request.box_private_key)["status"] is False
    assert liveness.deadline(row.public_id) == before


def test_a_redis_that_was_emptied_is_filled_with_full_deadlines_before_anything_is_swept(
    company: Company, fixed_clock: Clock
) -> None:
    rows = many(company, 5)
    with_fresh_marker()
    much_later = fixed_clock.advance(10 * TIMEOUT)
    redis_client().flushall()
    assert reaper.sweep(much_later) == 0
    expected = {row.public_id: float(much_later + TIMEOUT) for row in rows}
    assert liveness.deadlines([row.public_id for row in rows]) == expected
    # Nobody knows who had pinged: a lost answer is not given again.
    assert not any(liveness.awaits_first_ping(row.public_id, NOW) for row in rows)
    assert reaper.sweep(fixed_clock.advance(TIMEOUT - 1)) == 0
    assert reaper.sweep(fixed_clock.advance(1)) == 5


def test_another_redis_with_an_old_dump_revokes_nobody_early(company: Company) -> None:
    rows = many(company, 3)
    redis_client().set(liveness.MARKER, "the run id of the process before")
    much_later = NOW + 10 * TIMEOUT  # every deadline in the dump has passed
    assert reaper.sweep(much_later) == 0
    assert set(liveness.deadlines([row.public_id for row in rows]).values()) == {float(much_later + TIMEOUT)}
    assert not liveness.lost_memory()


def test_a_refill_never_shortens_a_deadline(company: Company) -> None:
    (row,) = many(company, 1)
    liveness.write([Ping(row.public_id, NOW + 5000, NOW, sure=False)])
    reaper.refill(NOW)
    assert liveness.deadline(row.public_id) == NOW + 5000


def test_a_refill_includes_who_waits_for_a_host_and_leaves_out_who_has_ended(company: Company) -> None:
    waiting = live(company, company.hire("waiting")[0], state=State.PENDING)
    ended = live(company, company.hire("ended")[0], state=State.ENDED)
    redis_client().flushall()
    reaper.refill(NOW)
    assert liveness.deadlines([waiting.public_id, ended.public_id]) == {waiting.public_id: NOW + TIMEOUT}


def test_each_server_has_its_own_timeout_in_a_refill(company: Company) -> None:
    company.server.ping_timeout = 60
    company.server.save()
    (row,) = many(company, 1)
    redis_client().flushall()
    reaper.refill(NOW)
    assert liveness.deadline(row.public_id) == NOW + 60


def test_a_refill_of_thousands_loses_none() -> None:
    liveness.refill((f"c{number}", NOW + number) for number in range(2500))
    assert redis_client().zcard(liveness.DEADLINES) == redis_client().hlen(liveness.PINGS) == 2501  # and the sentinel
    assert not liveness.lost_memory()


def test_a_redis_lost_during_the_refill_is_filled_again(company: Company) -> None:
    def live_until_redis_is_another() -> object:
        yield "a", NOW + 1.0
        redis_client().flushall()
        yield "b", NOW + 1.0

    many(company, 1)
    redis_client().set(liveness.MARKER, "another")
    liveness.refill(live_until_redis_is_another())  # type: ignore[arg-type]
    redis_client().delete(liveness.MARKER)
    assert liveness.lost_memory()
    assert reaper.sweep(NOW) == 0
    assert not liveness.lost_memory()
