"""Unknown ids, a wrong token and a wrong HMAC look the same and cost the same; and what a right request costs."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from redis.connection import AbstractConnection

from tests.attack import connect, ping, resign, unchanged
from tests.factories import Company, HostStandIn
from tests.lab import HANGING, until
from tests.protocol_client import ClientRequest, Identity, make_request, make_sync, new_wg_key
from users.models import Organization
from wgpeers.lifecycle import decisions
from wgpeers.lifecycle.keepalive import keepalive
from wgpeers.models import Connection, Decision

REQUESTS: dict[str, Callable[[Identity], ClientRequest]] = {
    "connect": make_request,
    "wait": lambda identity: make_request(identity, kind="wg_wait"),
    "ping": lambda identity: make_request(identity, method="PUT"),
    "sync": lambda identity: make_sync(identity, "a" * 32),
}


@contextmanager
def round_trips(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """What this thread sends to Redis, one item for each time it writes to the socket."""
    sent: list[bytes] = []
    mine = threading.get_ident()
    real: Callable[..., None] = AbstractConnection.send_packed_command

    def counting(self: AbstractConnection, command: Any, check_health: bool = True) -> None:
        if threading.get_ident() == mine:
            sent.append(command if isinstance(command, bytes) else b"".join(command))
        real(self, command, check_health)

    with monkeypatch.context() as patch:
        patch.setattr(AbstractConnection, "send_packed_command", counting)
        yield sent


def strangers(company: Company, alice: Identity) -> dict[str, Identity]:
    other = Organization.objects.create(name="Other")
    bob, _ = company.hire("bob")
    return {
        "no such organization": dataclasses.replace(alice, organization="0" * 24),
        "no such user": dataclasses.replace(alice, user="0" * 24),
        "no such server": dataclasses.replace(alice, server="0" * 24),
        "no such anything": dataclasses.replace(alice, organization="x", user="y", server="z"),
        "another's organization": dataclasses.replace(alice, organization=other.public_id),
        "another user": dataclasses.replace(alice, user=bob.public_id),
        "wrong token": dataclasses.replace(alice, token="0" * 32),
        "longer token": dataclasses.replace(alice, token=alice.token + "0"),
        "wrong secret": dataclasses.replace(alice, secret="0" * 32),
    }


@pytest.mark.parametrize("kind", REQUESTS)
def test_strangers_cannot_tell_what_exists(company: Company, host: HostStandIn, kind: str) -> None:
    _, alice = company.hire("alice")
    seen = {}
    for name, identity in strangers(company, alice).items():
        request = REQUESTS[kind](identity)
        with unchanged(host), CaptureQueriesContext(connection) as queries:
            response = request.send()
            count = len(queries)
        seen[name] = (response.status_code, response.content, sorted(response.headers.items()), count)
    assert len({repr(what) for what in seen.values()}) == 1, seen
    status, answer, *_ = seen["no such user"]
    assert (status, json.loads(answer)) == (401, {"error": "unauthorized", "detail": "not authorized"})
    # Nothing is written for a stranger: no decision, no nonce.
    assert not Decision.objects.exists()


def test_a_stranger_learns_nothing_from_the_later_checks(company: Company) -> None:
    """A clock that is off, a used nonce, a broken box: without the HMAC it all is 401."""
    _, alice = company.hire("alice")
    stranger = dataclasses.replace(alice, secret="0" * 32)
    request = make_request(stranger, now=1)
    request.body["data"] = "!"
    assert resign(stranger, request, 1).send().status_code == 401


def test_strangers_write_nothing_to_redis(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    _, alice = company.hire("alice")
    for identity in strangers(company, alice).values():
        for make in REQUESTS.values():
            request = make(identity)
            with round_trips(monkeypatch) as sent:
                assert request.send().status_code == 401
            assert sent == []


def test_a_ping_costs_one_query_and_waits_for_no_round_trip(
    company: Company, host: HostStandIn, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    keys = {name: new_wg_key() for name in ("alice", "bob")}
    people = {name: company.hire(name)[1] for name in keys}
    for name, identity in people.items():
        connect(identity, wg_public_key=keys[name])
    assert ping(people["bob"], keys["bob"]).status_code == 200
    with django_assert_num_queries(1) as queries, round_trips(monkeypatch) as sent:
        assert ping(people["alice"], keys["alice"]).status_code == 200
    assert queries.captured_queries[0]["sql"].lstrip().startswith("SELECT")
    assert sent == []


def test_a_further_ping_costs_neither(
    company: Company, host: HostStandIn, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    _, alice = company.hire("alice")
    key = make_request(alice).body["public_key"]
    connect(alice, wg_public_key=key)
    until(lambda: ping(alice, key).status_code == 200 and keepalive.trusted(keepalive.era), HANGING)
    assert ping(alice, key).status_code == 200
    with django_assert_num_queries(0), round_trips(monkeypatch) as sent:
        assert ping(alice, key).status_code == 200
    assert sent == []


def test_a_connect_costs_a_bounded_number_of_queries(
    company: Company, host: HostStandIn, monkeypatch: pytest.MonkeyPatch, django_assert_max_num_queries: Any
) -> None:
    """However many others are connected, devices are known and keys are spent."""
    _, alice = company.hire("alice")
    with django_assert_max_num_queries(34):
        connect(alice)
    for number in range(10):
        connect(company.hire(f"user {number}")[1])
        connect(alice)
    with django_assert_max_num_queries(34), round_trips(monkeypatch) as sent:
        connect(alice)
    assert len(sent) < 25


def test_a_sync_costs_a_bounded_number_of_queries(company: Company, django_assert_max_num_queries: Any) -> None:
    _, alice = company.hire("alice")
    with django_assert_max_num_queries(16):
        assert make_sync(alice, "a" * 32).send().status_code == 200


def test_a_recorded_request_cannot_fill_the_log(company: Company, host: HostStandIn) -> None:
    """Whoever is in the network path can send it again as often as they like, without any key."""
    _, alice = company.hire("alice")
    request, _ = connect(alice)
    before = Decision.objects.count()
    statuses = {request.send().status_code for _ in range(decisions.ENVELOPES_PER_MINUTE + 10)}
    assert statuses == {409}
    (row,) = Decision.objects.all()[: Decision.objects.count() - before]
    assert row.count == decisions.ENVELOPES_PER_MINUTE


def test_of_many_copies_at_the_same_moment_one_is_taken(company: Company, host: HostStandIn) -> None:
    _, alice = company.hire("alice")
    request, start, statuses = make_request(alice), threading.Barrier(6), []

    def run() -> None:
        try:
            start.wait(HANGING)
            statuses.append(request.send().status_code)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANGING)
    assert sorted(statuses) == [200, 409, 409, 409, 409, 409]
    assert Connection.objects.count() == 1
