"""The database is restored from a backup: whatever is trusted because it is newer goes back with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core import serializers
from django.db import transaction

from core.redis_store import redis_client
from servers import heartbeats
from servers.hostnet.reconcile.desired import Desired
from servers.models import Host, Server
from tests.attack import connect, pinged
from tests.conftest import Clock
from tests.connection_rows import live, queued, with_fresh_marker
from tests.factories import Company, HostStandIn, found
from tests.protocol_client import NOW, make_request, new_wg_key, plaintext
from wgpeers.fleet import desired, reports
from wgpeers.lifecycle import liveness, reaper
from wgpeers.models import Connection, ProfileRevision, SpentKey, State
from wgpeers.profiles import content

MODELS = (SpentKey, Connection)


def backup() -> str:
    """Host and server as they are; connections and spent keys too."""
    rows: list[Any] = [*Host.objects.all(), *Server.objects.all(), *Connection.objects.all(), *SpentKey.objects.all()]
    return str(serializers.serialize("json", rows))


def restore(text: str) -> None:
    with transaction.atomic():
        for model in MODELS:
            model._default_manager.all().delete()
        for row in serializers.deserialize("json", text):
            row.save()


def beats(host: Host, version: Any) -> None:
    redis_client().set(heartbeats.key(host), json.dumps({"boot": "b", "version": version}))


def test_a_host_that_has_seen_later_states_takes_the_next_one(company: Company, fixed_clock: Clock) -> None:
    before = backup()
    Host.objects.update(version=50, boot="b")
    seen = Desired("b")
    state = desired.state_of(company.host.pk)
    assert state is not None
    assert seen.take_full(state, NOW)
    restore(before)
    Host.objects.update(boot="b")
    older = desired.state_of(company.host.pk)
    assert older is not None
    assert not seen.take_full(older, NOW)
    beats(company.host, seen.version)
    reports.take_reports(NOW)
    assert ("wgpeers.converge", [company.host.pk]) in queued()
    newer = desired.state_of(company.host.pk)
    assert newer is not None
    assert seen.take_full(newer, NOW)


@pytest.mark.parametrize("version", [2**62, 2**80, -1, 0, "7", 7.5, True, None, [7]])
def test_a_host_cannot_raise_its_version_beyond_reason(company: Company, version: Any) -> None:
    before = Host.objects.get().version
    beats(company.host, version)
    reports.take_reports(NOW)
    assert Host.objects.get().version == before


def test_a_host_that_is_behind_or_level_changes_nothing(company: Company) -> None:
    Host.objects.update(version=9)
    for version in (3, 9):
        beats(company.host, version)
        reports.take_reports(NOW)
        assert Host.objects.get().version == 9


def test_a_client_takes_the_first_profile_after_a_restore(company: Company, fixed_clock: Clock) -> None:
    """It takes no revision below its own."""
    user, _ = company.hire("alice")
    content._revision(user, company.server, "before")
    saved = serializers.serialize("json", ProfileRevision.objects.all())
    held = [content._revision(user, company.server, f"later {number}") for number in range(5)]
    ProfileRevision.objects.all().delete()
    for row in serializers.deserialize("json", saved):
        row.save()
    fixed_clock.advance(100)
    assert content._revision(user, company.server, "after") > max(held)


def test_a_connection_that_a_backup_brings_back_ends_when_nobody_pings(company: Company, fixed_clock: Clock) -> None:
    live(company, company.hire("alice")[0])
    before = backup()
    with_fresh_marker()
    row = Connection.objects.get()
    liveness.forget([row.public_id])
    Connection.objects.update(state=State.ENDED)
    restore(before)
    assert Connection.objects.get().state == State.OPEN
    assert reaper.sweep(fixed_clock.advance(10)) == 0
    assert reaper.sweep(fixed_clock.advance(359)) == 0
    assert reaper.sweep(fixed_clock.advance(1)) == 1


def test_a_connection_that_a_backup_brings_back_goes_on_if_its_client_pings(
    company: Company, host: HostStandIn, fixed_clock: Clock
) -> None:
    _, alice = company.hire("alice")
    key = new_wg_key()
    connect(alice, wg_public_key=key)
    before = backup()
    assert pinged(alice, key, now=int(fixed_clock.advance(10)))
    restore(before)
    assert pinged(alice, key, now=int(fixed_clock.advance(10)))


def test_a_recorded_connect_of_after_the_backup_is_not_taken_again(
    company: Company, host: HostStandIn, fixed_clock: Clock
) -> None:
    """Its spent key is gone with the backup; its nonce is not."""
    _, alice = company.hire("alice")
    before = backup()
    request = make_request(alice, plaintext())
    assert request.send().status_code == 200
    restore(before)
    assert not SpentKey.objects.exists()
    assert request.send().status_code == 409
    fixed_clock.advance(601)  # and after the nonce its time is over
    redis_client().flushdb()
    assert request.send().status_code == 408


@pytest.fixture
def company(transactional_db: None, fixed_clock: Clock) -> Company:
    return found()
