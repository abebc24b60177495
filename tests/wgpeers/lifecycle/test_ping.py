"""Pings: whose count, what they are told, and that a fault of ours never looks like one of theirs."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import OperationalError
from django.db import connection as database

from core import redis_store
from core.crypto import Secret
from core.redis_store import RedisUnavailable, redis_client
from tests.attack import at_server, connect, ping, pinged, second_server, unchanged
from tests.conftest import Clock
from tests.factories import Company, HostStandIn
from tests.lab import HANGING, RedisServer, until
from tests.protocol_client import NOW, Identity, make_request, make_sync, new_wg_key, open_answer, plaintext
from users.models import Organization, VpnUser
from wgpeers.lifecycle import accounts, liveness
from wgpeers.lifecycle import connect as connecting
from wgpeers.lifecycle import ping as pings
from wgpeers.lifecycle.ending import end
from wgpeers.lifecycle.keepalive import EVERY, Keepalive, keepalive
from wgpeers.models import Connection, Decision, EndReason


@pytest.fixture
def alice(company: Company) -> Identity:
    return company.hire("alice")[1]


@pytest.fixture
def key(alice: Identity, host: HostStandIn) -> str:
    """The WireGuard key of Alice's open connection."""
    key = new_wg_key()
    connect(alice, wg_public_key=key)
    return key


def deadline() -> float | None:
    keepalive.write()
    return liveness.deadline(Connection.objects.latest("pk").public_id)


def test_a_ping_moves_the_deadline(alice: Identity, key: str, fixed_clock: Clock) -> None:
    assert deadline() == NOW + 360
    now = int(fixed_clock.advance(300))
    assert pinged(alice, key, now=now)
    assert deadline() == now + 360


def test_anybody_elses_ping_does_not_count(company: Company, alice: Identity, key: str, fixed_clock: Clock) -> None:
    _, bob = company.hire("bob")
    connect(bob)
    there = at_server(alice, second_server(company))
    now = int(fixed_clock.advance(10))
    elsewhere = dataclasses.replace(alice, organization=Organization.objects.create(name="Other").public_id)
    with unchanged():
        assert not pinged(bob, key, now=now)  # Bob's proofs, Alice's key
        assert not pinged(there, key, now=now)  # Alice at another server
        assert not pinged(alice, new_wg_key(), now=now)  # Alice with another key
        # Alice by another organization's id: there is no such user.
        assert ping(elsewhere, key, now=now).status_code == 401


def test_a_ping_of_an_ended_connection_is_told_so_at_once(
    company: Company, alice: Identity, key: str, fixed_clock: Clock
) -> None:
    connecting.disconnect(Connection.objects.get(), NOW)
    with unchanged():
        assert not pinged(alice, key)


@pytest.mark.parametrize("reason", EndReason)
def test_it_is_told_why_it_ended_whatever_the_reason(
    company: Company, alice: Identity, key: str, fixed_clock: Clock, reason: EndReason
) -> None:
    assert said(alice, key) == {"status": True, "timestamp": NOW}
    end(Connection.objects.all(), EndReason(reason), NOW)
    if reason == EndReason.UNCONFIRMED:  # it was confirmed
        return
    assert said(alice, key) == {"status": False, "timestamp": NOW, "reason": EndReason(reason).label}
    _, bob = company.hire("bob")
    there = at_server(alice, second_server(company))
    for another in (bob, there):
        assert said(another, key) == {"status": False, "timestamp": NOW}
    for unknown in (new_wg_key(), "nonsense"):
        assert said(alice, unknown) == {"status": False, "timestamp": NOW}


def said(identity: Identity, key: str) -> dict[str, Any]:
    """The whole answer to a right ping."""
    request = make_request(identity, plaintext(wg_public_key=key, timestamp=NOW), method="PUT", now=NOW)
    return open_answer(request.send().json(), identity, request.box_private_key)


@pytest.fixture
def remembered(alice: Identity, key: str) -> None:
    """The process has heard Redis, and has read and remembered Alice's connection since."""
    assert pinged(alice, key)
    until(lambda: keepalive.trusted(keepalive.era), HANGING)
    assert pinged(alice, key)
    keepalive.write()


@pytest.mark.usefixtures("remembered")
def test_what_is_remembered_of_a_user_lasts_a_minute_and_refuses_nothing_new(
    alice: Identity, key: str, fixed_clock: Clock
) -> None:
    VpnUser.objects.update(sync_secret=Secret.of("n" * 32))
    changed = dataclasses.replace(alice, secret="n" * 32)
    now = int(fixed_clock.advance(30))
    assert pinged(alice, key, now=now)  # the old secret still extends the open connection, which proves it
    assert pinged(changed, key, now=now)  # the new one counts at once, and the old one not any more
    assert ping(alice, key, now=now).status_code == 401


@pytest.mark.usefixtures("remembered")
def test_what_is_remembered_is_read_again_after_a_minute(alice: Identity, key: str, fixed_clock: Clock) -> None:
    Connection.objects.update(state="ended")  # and Redis is not told
    assert pinged(alice, key, now=int(fixed_clock.advance(59)))
    assert not pinged(alice, key, now=int(fixed_clock.advance(1)))


@pytest.mark.usefixtures("remembered")
def test_a_clock_that_is_set_back_makes_nothing_remembered_for_longer(
    alice: Identity, key: str, fixed_clock: Clock
) -> None:
    Connection.objects.update(state="ended")
    assert not pinged(alice, key, now=int(fixed_clock.advance(-100)))


@pytest.mark.usefixtures("remembered")
def test_a_remembered_connection_that_redis_forgot_is_looked_up(
    alice: Identity, key: str, fixed_clock: Clock, django_assert_num_queries: Any
) -> None:
    redis_client().flushdb()
    with django_assert_num_queries(0):
        assert pinged(alice, key, now=int(fixed_clock.advance(10)))
    assert deadline() is None  # it may have ended: what is remembered gives nobody a deadline
    now = int(fixed_clock.advance(10))
    with django_assert_num_queries(1):
        assert pinged(alice, key, now=now)
    assert deadline() == now + 360


@pytest.mark.usefixtures("remembered")
def test_an_end_elsewhere_is_told_with_the_next_ping(alice: Identity, key: str, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert pinged(alice, key)
    connection = Connection.objects.get()
    connecting.disconnect(connection, NOW)
    until(lambda: keepalive.has_ended(connection.public_id), HANGING)
    assert not pinged(alice, key)


def test_ends_that_are_heard_do_not_make_pings_be_written_more_often(
    alice: Identity, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a storm each connect ends another connection, and each process hears of each."""
    assert pinged(alice, key)
    until(lambda: keepalive.trusted(keepalive.era), HANGING)
    connection, writings, write = Connection.objects.get().public_id, [], liveness.write

    def counted(found: Iterable[liveness.Ping]) -> list[str]:
        some = list(found)
        writings.extend(some)
        return write(some)

    monkeypatch.setattr(liveness, "write", counted)
    began = time.monotonic()
    for number in range(100):
        keepalive.note(liveness.Ping(connection, NOW + 400.0, NOW + number, sure=False))
        redis_client().publish(liveness.ENDED, f"another-{number}")
        until(partial(keepalive.has_ended, f"another-{number}"), HANGING, every=0.001)
    assert len(writings) <= (time.monotonic() - began) / EVERY + 2
    until(lambda: redis_client().hget(liveness.PINGS, connection) == str(NOW + 99), HANGING)


def test_an_end_while_the_database_is_read_leaves_nothing_remembered(
    alice: Identity, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pinged(alice, key)
    until(lambda: keepalive.trusted(keepalive.era), HANGING)
    connection = Connection.objects.get()
    read = accounts.for_ping

    def ended_meanwhile(*ids: str) -> Any:
        found = read(*ids)
        connecting.disconnect(connection, NOW)
        until(lambda: keepalive.has_ended(connection.public_id), HANGING)
        return found

    pings._remembered.clear()
    monkeypatch.setattr(accounts, "for_ping", ended_meanwhile)
    assert pinged(alice, key)  # it was open when it was looked at
    monkeypatch.setattr(accounts, "for_ping", read)
    assert not pinged(alice, key)


@pytest.mark.usefixtures("remembered")
def test_what_was_read_before_redis_was_lost_is_not_trusted(
    alice: Identity, key: str, settings: LazySettings, django_assert_num_queries: Any
) -> None:
    """An end that was published meanwhile was not heard."""
    url, era = settings.REDIS_URL, keepalive.era
    settings.REDIS_URL = "unix:///nonexistent/redis.sock"
    until(lambda: not keepalive.trusted(keepalive.era), HANGING)
    settings.REDIS_URL = url
    until(lambda: keepalive.era > era and keepalive.trusted(keepalive.era), HANGING)
    with django_assert_num_queries(1):
        assert pinged(alice, key)
    with django_assert_num_queries(0):
        assert pinged(alice, key)


def test_no_more_is_remembered_than_fits(
    company: Company, alice: Identity, key: str, host: HostStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pings, "MOST_REMEMBERED", 1)
    _, bob = company.hire("bob")
    bobs = new_wg_key()
    connect(bob, wg_public_key=bobs)
    until(lambda: pinged(alice, key) and keepalive.trusted(keepalive.era), HANGING)
    for _ in range(2):
        assert pinged(alice, key)
        assert pinged(bob, bobs)
        assert len(pings._remembered) == 1


def test_a_pending_connection_has_no_pings(alice: Identity, key: str) -> None:
    Connection.objects.update(state="pending")
    with unchanged():
        assert not pinged(alice, key)


def test_a_ping_is_told_true_but_extends_nothing_if_it_is_not_newer(
    alice: Identity, key: str, fixed_clock: Clock
) -> None:
    now = int(fixed_clock.advance(100))
    request = make_request(alice, plaintext(wg_public_key=key, timestamp=now), method="PUT", now=now)
    assert request.send().status_code == 200
    fixed_clock.advance(200)
    with unchanged():
        assert request.send().status_code == 200  # the very same request
        assert pinged(alice, key, now=now + 200, sent=now)  # in a new envelope
        assert pinged(alice, key, now=now + 200, sent=now - 50)  # an older one
    assert deadline() == now + 360
    assert pinged(alice, key, now=now + 200)
    assert deadline() == now + 560


def test_a_client_whose_clock_is_put_right_while_connected_stays(alice: Identity, key: str, fixed_clock: Clock) -> None:
    """It was nine minutes ahead: for as long, no ping has a newer time. But it comes through the tunnel."""
    ahead = 540
    now = int(fixed_clock.advance(10))
    own: dict[str, Any] = {"REMOTE_ADDR": Connection.objects.get().address}

    def send(said: int) -> None:
        request = make_request(alice, plaintext(wg_public_key=key, timestamp=said), method="PUT", now=said)
        assert request.send(**own).status_code == 200

    send(now + ahead)
    for _ in range(50):
        now = int(fixed_clock.advance(10))
        send(now)
        assert deadline() == now + 360


def test_from_elsewhere_an_older_ping_still_extends_nothing(alice: Identity, key: str, fixed_clock: Clock) -> None:
    now = int(fixed_clock.advance(10))
    assert pinged(alice, key, now=now)
    later = int(fixed_clock.advance(100))
    for source in ("10.9.0.3", "192.0.2.7", "fd09::2"):
        meta: dict[str, Any] = {"REMOTE_ADDR": source}
        request = make_request(alice, plaintext(wg_public_key=key, timestamp=now - 5), method="PUT", now=later)
        assert request.send(**meta).status_code == 200
    assert deadline() == now + 360


def test_copies_of_pings_do_not_keep_a_silent_client_alive(alice: Identity, key: str, fixed_clock: Clock) -> None:
    recorded = [
        make_request(alice, plaintext(wg_public_key=key, timestamp=NOW + at), method="PUT", now=NOW + at)
        for at in (10, 20, 30)
    ]
    for request in recorded:
        fixed_clock.advance(10)
        assert request.send().status_code == 200
    last = deadline()
    fixed_clock.advance(300)
    for request in (*recorded, *reversed(recorded)):
        assert request.send().status_code == 200
    assert deadline() == last


def test_no_nonce_is_stored_and_no_decision_written_for_a_ping(alice: Identity, key: str, fixed_clock: Clock) -> None:
    nonces, decisions = len(list(redis_client().scan_iter("nonce:*"))), Decision.objects.count()
    for _ in range(3):
        assert pinged(alice, key, now=int(fixed_clock.advance(10)))
    assert len(list(redis_client().scan_iter("nonce:*"))) == nonces
    assert Decision.objects.count() == decisions


@pytest.fixture
def redis_is_down(alice: Identity, key: str, settings: LazySettings) -> Iterator[None]:
    """Requested after the connection is there; and up again for what the test's end does."""
    url = settings.REDIS_URL
    settings.REDIS_URL = "unix:///nonexistent/redis.sock"
    yield
    settings.REDIS_URL = url


@pytest.mark.usefixtures("redis_is_down")
def test_redis_down_is_our_fault(alice: Identity, key: str) -> None:
    for request in (make_request(alice), make_sync(alice, "a")):
        response = request.send()
        assert (response.status_code, response.json()["error"]) == (503, "store_down")


def test_a_ping_without_redis_is_answered_at_once_and_counts_when_redis_is_back(
    alice: Identity, key: str, fixed_clock: Clock, settings: LazySettings
) -> None:
    before, url = deadline(), settings.REDIS_URL
    settings.REDIS_URL = "unix:///nonexistent/redis.sock"
    now = int(fixed_clock.advance(10))
    assert pinged(alice, key, now=now)
    with pytest.raises(RedisUnavailable):
        keepalive.write()
    settings.REDIS_URL = url
    assert before == NOW + 360
    assert deadline() == now + 360


def test_a_ping_does_not_wait_for_a_redis_that_hangs_and_counts_afterwards(
    alice: Identity, key: str, fixed_clock: Clock, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = redis_store._options
    # Whoever waits for it now waits until this test is taken to hang.
    monkeypatch.setattr(redis_store, "_options", lambda timeout: {**options(timeout), "socket_timeout": 100 * HANGING})
    url = settings.REDIS_URL
    with RedisServer() as server:
        with server.client() as client:
            pid = int(client.info("server")["process_id"])
        settings.REDIS_URL = server.url
        assert pinged(alice, key, now=int(fixed_clock.advance(10)))
        until(lambda: keepalive.trusted(keepalive.era))
        os.kill(pid, signal.SIGSTOP)
        now = int(fixed_clock.advance(10))
        assert pinged(alice, key, now=now)
        fixed_clock.advance(pings.REMEMBERED + 1)  # and when the database is to be read
        assert pinged(alice, key, now=int(fixed_clock.advance(10)))
        os.kill(pid, signal.SIGCONT)
        now = int(fixed_clock.advance(10))
        assert pinged(alice, key, now=now)
        assert deadline() == now + 360
    settings.REDIS_URL = url


def test_a_ping_is_answered_while_redis_refuses_to_write_and_counts_afterwards(
    alice: Identity, key: str, fixed_clock: Clock, settings: LazySettings
) -> None:
    """As it does when its disk is full."""
    url = settings.REDIS_URL
    with RedisServer() as server:
        settings.REDIS_URL = server.url
        redis_client().config_set("min-replicas-to-write", "1")
        now = int(fixed_clock.advance(10))
        assert pinged(alice, key, now=now)
        with pytest.raises(RedisUnavailable):
            keepalive.write()
        assert make_request(alice).send().json() == {"error": "store_down", "detail": "try again"}
        assert make_sync(alice, "a").send().status_code == 503
        redis_client().config_set("min-replicas-to-write", "0")
        assert deadline() == now + 360
    settings.REDIS_URL = url


@pytest.mark.usefixtures("redis_is_down")
def test_redis_down_does_not_hide_that_a_peer_is_gone(alice: Identity) -> None:
    assert not pinged(alice, new_wg_key())


def _failing(*_: Any) -> Any:
    raise OperationalError("server closed the connection unexpectedly")


@pytest.mark.usefixtures("remembered")
def test_a_ping_without_a_database_is_answered_from_memory_for_five_minutes(
    alice: Identity, key: str, fixed_clock: Clock
) -> None:
    """Nobody can be disabled there meanwhile, and Redis still says who has ended."""
    with database.execute_wrapper(_failing):
        assert pinged(alice, key, now=int(fixed_clock.advance(299)))
        assert ping(alice, key, now=int(fixed_clock.advance(1))).status_code == 503
        assert ping(alice, new_wg_key(), now=int(fixed_clock.now)).status_code == 503


@pytest.mark.usefixtures("remembered")
def test_without_a_database_an_end_still_counts(alice: Identity, key: str, fixed_clock: Clock) -> None:
    connection = Connection.objects.get()
    liveness.forget([connection.public_id])
    until(lambda: keepalive.has_ended(connection.public_id), HANGING)
    with database.execute_wrapper(_failing):
        assert ping(alice, key).status_code == 503


def test_a_database_that_fails_is_our_fault(alice: Identity, key: str) -> None:
    requests = [
        make_request(alice, plaintext(wg_public_key=key), method="PUT"),
        make_request(alice),
        make_sync(alice, "a"),
    ]
    for request in requests:
        with database.execute_wrapper(_failing):
            response = request.send()
        assert (response.status_code, response.json()["error"]) == (503, "store_down")


def test_a_bug_is_our_fault(alice: Identity, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Keepalive, "note", lambda *_: 1 / 0)
    response = ping(alice, key)
    assert (response.status_code, response.json()) == (500, {"error": "internal"})


def test_a_secret_that_does_not_open_is_our_fault(company: Company, key: str, alice: Identity) -> None:
    VpnUser.objects.update(sync_secret=type(VpnUser.objects.get().sync_secret)("not ciphertext"))
    response = ping(alice, key)
    assert (response.status_code, response.json()) == (500, {"error": "internal"})


def test_redis_lost_during_a_connect_leaves_nothing_half_made(
    alice: Identity, host: HostStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wgpeers.fleet import messages

    def down(*_: Any) -> bool:
        raise RedisUnavailable

    monkeypatch.setattr(messages, "add_and_wait", down)
    assert make_request(alice).send().status_code == 503
    assert not Connection.objects.exclude(state="ended").exists()


def test_a_ping_has_no_budget(alice: Identity, key: str, fixed_clock: Clock, settings: LazySettings) -> None:
    settings.ATTEMPTS_PER_USER = settings.ATTEMPTS_PER_ADDRESS = 1
    for _ in range(5):
        assert pinged(alice, key, now=int(fixed_clock.advance(1)))
