"""A host whose clock is not the control side's is shown as such, and hears every message all the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client

from core import clock
from core.redis_store import redis_client
from servers import heartbeats
from servers.hostnet.state import AddPeer, HostState, Peer, RemovePeers
from servers.models import Host
from tests.admin_site import staff
from tests.conftest import Clock
from tests.connection_rows import live
from tests.factories import Company
from tests.lab import NEVER
from wgpeers.fleet import messages, reports
from wgpeers.models import Connection, State

HOUR, DAY = 3600, 86400
WRONG = {"code": "dns_failed", "severity": "error", "text": "no DNS"}


def beat(host: Host, **fields: Any) -> None:
    redis_client().set(f"{host.queue}:alive", json.dumps({"boot": "b", "version": 1, **fields}), ex=60)


def codes(host: Host) -> list[str]:
    said = heartbeats.read([host]).get(host.pk)
    return [each["code"] for each in heartbeats.conditions(host, said, clock.now())]


@pytest.mark.parametrize("off", [HOUR, -HOUR, DAY, -DAY, 31, -45])
def test_host_whose_clock_is_off_has_that_as_a_condition_beside_its_own(
    company: Company, fixed_clock: Clock, off: int
) -> None:
    host = company.host
    host.conditions = [WRONG]
    beat(host, time=fixed_clock.now + off)
    assert codes(host) == ["clock_off", "dns_failed"]
    said = heartbeats.conditions(host, heartbeats.read([host])[host.pk], clock.now())[0]["text"]
    assert f"{abs(off)} seconds {'ahead' if off > 0 else 'behind'}" in said


@pytest.mark.parametrize(
    "said",
    [{"time": 0}, {"time": -9}, {}, {"time": "x"}, {"time": None}, {"time": float("nan")}, {"time": 10**400}],
    ids=["now", "nine seconds old", "none", "words", "null", "nan", "huge"],
)
def test_clock_that_is_right_or_unknown_is_no_condition(
    company: Company, fixed_clock: Clock, said: dict[str, Any]
) -> None:
    seconds = said.get("time")
    if seconds in (0, -9):
        said = {"time": fixed_clock.now + float(seconds or 0)}
    beat(company.host, **said)
    assert codes(company.host) == []


def test_it_is_seen_in_the_list_and_on_the_hosts_page(company: Company, fixed_clock: Clock) -> None:
    beat(company.host, time=fixed_clock.now + HOUR)
    client = Client()
    staff(client, superuser=True)
    assert "clock_off" in client.get("/admin/servers/host/").content.decode()
    page = client.get(f"/admin/servers/host/{company.host.pk}/change/").content.decode()
    assert "clock_off" in page
    assert "3600 seconds ahead" in page


def test_when_a_peer_was_removed_is_told_by_our_clock(company: Company, fixed_clock: Clock) -> None:
    connection = live(company, company.hire("alice")[0], fixed_clock.now)
    ended = clock.moment(fixed_clock.now)
    Connection.objects.update(state=State.ENDED, ended=ended, due=ended)
    beat(company.host, time=fixed_clock.now + 600)
    removed = {"kind": "removed", "connections": [connection.public_id], "reason": "asked"}
    reports.take_report(company.host, {**removed, "time": fixed_clock.now + 602}, fixed_clock.now + 3)
    connection.refresh_from_db()
    assert connection.removal_latency is not None
    assert connection.removal_latency < 10


def test_no_message_to_a_host_is_out_of_date_by_any_clock(company: Company, settings: LazySettings) -> None:
    host = company.host
    peer = Peer("c", 1, "key", ("10.9.0.2/32",))
    settings.CONFIRM_TIMEOUT = NEVER
    state = HostState(host.public_id, 1, "b", 9790, ())
    messages.send_full_state(host, state)
    messages.send_removal(host, RemovePeers(1, ("c",)))
    messages.add_and_wait(host, AddPeer("s", peer, (), messages.confirm_key(host, "c")))
    with pytest.raises(messages.NoPlan):
        messages.ask_plan(host, state, NEVER)
    raws: Any = redis_client().lrange(host.queue, 0, -1)
    headers = [json.loads(raw)["headers"] for raw in raws]
    assert len(headers) == 4
    assert [each["expires"] for each in headers] == [None] * 4
