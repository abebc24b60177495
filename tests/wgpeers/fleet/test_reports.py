"""What hosts report is data: it changes rows of that host, and nothing a host writes holds up another one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.clock import moment
from core.redis_store import redis_client
from servers import heartbeats
from servers.models import Host, ServerHost
from tests.conftest import Clock
from tests.connection_rows import live, many, messages, queued, reasons, with_fresh_marker
from tests.factories import Company, add_host, found
from tests.protocol_client import NOW, new_wg_key
from wgpeers import tasks
from wgpeers.fleet import reports
from wgpeers.lifecycle import reaper
from wgpeers.models import Connection, Decision, State

TIMEOUT = 360


@pytest.fixture
def company(db: None, fixed_clock: Clock) -> Company:
    return found()


def report(host: Host, text: str | bytes | dict[str, Any]) -> None:
    redis_client().rpush(f"{host.queue}:reports", json.dumps(text) if isinstance(text, dict) else text)


WRONG = {"code": "firewall_failed", "severity": "error", "text": "nft: no"}


def removed(*connections: str, reason: str = "asked", time: float = NOW) -> dict[str, Any]:
    return {"kind": "removed", "boot": "b", "time": time, "connections": list(connections), "reason": reason}


def test_a_hello_is_noted_and_answered_with_a_full_state(company: Company) -> None:
    report(company.host, {"kind": "hello", "boot": "boot-2", "time": NOW, "backend": "userspace"})
    assert reports.take_reports(NOW) == 1
    company.host.refresh_from_db()
    assert (company.host.boot, company.host.backend) == ("boot-2", "userspace")
    assert ("wgpeers.converge", [company.host.pk]) in queued()


def test_an_applied_state_is_noted_with_its_keys_and_what_drifted(company: Company) -> None:
    key, server = new_wg_key(), company.server.public_id
    ok = {"kind": "applied", "boot": "b", "time": NOW, "version": 7, "keys": {server: key}, "drift": []}
    report(company.host, ok | {"drift": ["a peer was gone", "an address was gone"]})
    reports.take_reports(NOW)
    report(company.host, ok | {"version": 8, "conditions": [WRONG]})
    reports.take_reports(NOW + 60)
    company.host.refresh_from_db()
    assert ServerHost.objects.get().public_key == key
    assert (company.host.applied_version, company.host.applied_at) == (8, moment(NOW + 60))
    assert (company.host.drift, company.host.drift_at) == ("a peer was gone\nan address was gone", moment(NOW))
    assert company.host.conditions == [WRONG]


def test_what_a_host_put_back_by_itself_is_shown_as_what_a_full_state_found(company: Company) -> None:
    said = {"kind": "repaired", "version": 7, "keys": {}, "drift": ["the table was gone"], "conditions": [WRONG]}
    report(company.host, said)
    assert reports.take_reports(NOW) == 1
    company.host.refresh_from_db()
    assert (company.host.drift, company.host.drift_at) == ("the table was gone", moment(NOW))
    assert company.host.conditions == [WRONG]


def test_a_host_reports_keys_for_its_own_servers_only(company: Company) -> None:
    before = ServerHost.objects.get(host=company.host).public_key
    other = add_host(company.server, "gate-2")
    theirs = ServerHost.objects.get(host=other).public_key
    keys = {company.server.public_id: "short", "unknown": new_wg_key()}
    report(other, {"kind": "applied", "version": 1, "keys": keys})
    assert reports.take_reports(NOW) == 1
    assert ServerHost.objects.get(host=company.host).public_key == before
    assert ServerHost.objects.get(host=other).public_key == theirs


def test_removal_latency_is_from_when_it_was_due_to_when_the_peer_was_gone(company: Company) -> None:
    with_fresh_marker()
    (row,) = many(company, 1)
    reaper.sweep(NOW + TIMEOUT + 4)
    report(company.host, removed(row.public_id, time=NOW + TIMEOUT + 4.5))
    reports.take_reports(NOW + TIMEOUT + 6)
    row.refresh_from_db()
    assert row.removal_latency == pytest.approx(4.5)
    assert row.removed == moment(NOW + TIMEOUT + 4.5)
    report(company.host, removed(row.public_id, time=NOW + TIMEOUT + 99))  # said again: the first one stands
    reports.take_reports(NOW + TIMEOUT + 99)
    row.refresh_from_db()
    assert row.removal_latency == pytest.approx(4.5)


@pytest.mark.parametrize("time", [NOW + 10**6, NOW - 10**6, 1e308, float("inf"), float("nan"), -1])
def test_a_host_with_a_wrong_clock_gets_ours(company: Company, time: float) -> None:
    row = live(company, company.hire("alice")[0])
    Connection.objects.update(state=State.ENDED, ended=moment(NOW), due=moment(NOW))
    report(company.host, removed(row.public_id, time=time))
    reports.take_reports(NOW + 3)
    row.refresh_from_db()
    assert row.removal_latency == pytest.approx(3.0)


def test_a_silent_report_ends_the_row_while_it_lives(company: Company) -> None:
    row = live(company, company.hire("alice")[0])
    report(company.host, removed(row.public_id, reason="silent"))
    reports.take_reports(NOW + 400)
    row.refresh_from_db()
    assert (row.state, row.end_reason) == (State.ENDED, "silent")
    assert row.removed is not None
    assert Decision.objects.count() == 1
    report(company.host, removed(row.public_id, reason="silent"))
    reports.take_reports(NOW + 401)
    assert Decision.objects.count() == 1


@pytest.mark.parametrize("reason", ["asked", "replaced", "", None, 7])
def test_any_other_removal_leaves_a_live_row_alone(company: Company, reason: Any) -> None:
    row = live(company, company.hire("alice")[0])
    report(company.host, removed(row.public_id) | {"reason": reason})
    reports.take_reports(NOW)
    row.refresh_from_db()
    assert (row.state, row.removed) == (State.OPEN, None)


def test_a_host_cannot_end_connections_of_another_one(company: Company) -> None:
    stranger = add_host(company.server, "gate-2")
    row = live(company, company.hire("alice")[0])
    report(stranger, removed(row.public_id, reason="silent"))
    assert reports.take_reports(NOW) == 1
    row.refresh_from_db()
    assert (row.state, row.removed, row.removal_latency) == (State.OPEN, None, None)


def test_a_report_of_ten_thousand_removals_is_taken_whole(company: Company) -> None:
    row = live(company, company.hire("alice")[0])
    names = [f"unknown{number}" for number in range(10_000)]
    report(company.host, removed(*names, row.public_id, reason="silent"))
    reports.take_reports(NOW)
    assert reasons() == {"alice": "silent"}


MALFORMED: list[str | bytes | dict[str, Any]] = [
    "",
    "not JSON",
    "[]",
    "7",
    "null",
    '"text"',
    b"\xff\xfe",
    "[" * 100_000,
    {},
    {"kind": "unknown"},
    {"kind": ["hello"]},
    {"kind": "hello"},
    {"kind": "hello", "boot": "a\x00b"},
    {"kind": "applied"},
    {"kind": "applied", "version": "x"},
    {"kind": "applied", "version": None},
    {"kind": "applied", "version": float("inf")},
    {"kind": "applied", "version": 10**30},
    {"kind": "applied", "version": 1, "drift": 5},
    {"kind": "applied", "version": 1, "keys": ["x"]},
    {"kind": "applied", "version": 1, "error": "a\x00b"},
    {"kind": "removed"},
    {"kind": "removed", "connections": None},
    {"kind": "removed", "connections": 5},
    {"kind": "removed", "connections": ["a\x00b"]},
    {"kind": "removed", "connections": [], "time": "soon"},
    {"kind": "removed", "connections": [], "time": 10**400},
]


@pytest.mark.parametrize("bad", MALFORMED, ids=lambda bad: repr(bad)[:40])
def test_a_report_that_cannot_be_read_is_dropped_and_those_after_it_are_taken(
    transactional_db: None, fixed_clock: Clock, bad: str | bytes | dict[str, Any]
) -> None:
    company = found()
    later = Host.objects.create(name="zzz", public_address="192.0.2.7")
    hello = {"kind": "hello", "boot": "boot-2", "backend": "kernel"}
    report(company.host, bad)
    report(company.host, hello)
    report(later, hello)
    assert reports.take_reports(NOW) == 3
    assert set(Host.objects.values_list("boot", flat=True)) == {"boot-2"}
    assert not redis_client().exists(f"{company.host.queue}:reports")


@pytest.mark.parametrize("kind", ["string", "hash"])
def test_a_host_whose_reports_are_no_list_holds_up_nobody(company: Company, kind: str) -> None:
    later = Host.objects.create(name="zzz", public_address="192.0.2.7")
    report(later, {"kind": "hello", "boot": "boot-2"})
    name = f"{company.host.queue}:reports"
    if kind == "string":
        redis_client().set(name, "x")
    else:
        redis_client().hset(name, "x", "y")
    assert reports.take_reports(NOW) == 1
    later.refresh_from_db()
    assert later.boot == "boot-2"


def test_a_noisy_host_is_heard_a_batch_at_a_time(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "BATCH", 10)
    for _ in range(25):
        report(company.host, removed())
    assert [reports.take_reports(NOW) for _ in range(4)] == [10, 10, 5, 0]


def test_a_host_that_says_hello_all_the_time_gets_one_state_at_a_time(company: Company) -> None:
    for number in range(100):
        report(company.host, {"kind": "hello", "boot": f"boot-{number}"})
    queued()
    reports.take_reports(NOW)
    assert queued() == [("wgpeers.converge", [company.host.pk])]
    company.host.refresh_from_db()
    assert company.host.boot == "boot-99"


HEARTBEATS = [
    b"\xff",
    "{",
    "[" * 100_000,
    "[1]",
    "7",
    '{"boot": {"a": 1}}',
    r'{"boot": "a\u0000b"}',
    r'{"boot": "\ud800"}',
]


@pytest.mark.parametrize("said", HEARTBEATS, ids=lambda said: repr(said)[:30])
def test_a_heartbeat_of_any_form_is_one_and_spoils_no_other(
    transactional_db: None, fixed_clock: Clock, said: str | bytes
) -> None:
    company = found()
    queued()
    silent = add_host(company.server, "gate-2", alive=False)
    odd = add_host(company.server, "gate-3")
    redis_client().set(heartbeats.key(odd), said)
    alive = heartbeats.read([company.host, silent, odd])
    assert set(alive) == {company.host.pk, odd.pk}
    assert alive[company.host.pk]["boot"] == "b"
    queued()
    tasks.converge_all()
    assert sorted(queued()) == [("wgpeers.converge", [company.host.pk]), ("wgpeers.converge", [odd.pk])]


def test_no_heartbeat_is_read_of_no_host() -> None:
    assert heartbeats.read([]) == {}


def test_a_lost_hello_is_made_up_for_by_the_heartbeat(company: Company) -> None:
    redis_client().set(heartbeats.key(company.host), json.dumps({"boot": "boot-3"}))
    tasks.converge_all()
    company.host.refresh_from_db()
    assert company.host.boot == "boot-3"
    tasks.converge(company.host.pk)
    (state,) = messages(company.host, "hostnet.full_state")
    assert state["boot"] == "boot-3"


def test_reports_are_taken_by_their_task(company: Company) -> None:
    report(company.host, {"kind": "hello", "boot": "boot-2"})
    tasks.take_reports()
    company.host.refresh_from_db()
    assert company.host.boot == "boot-2"


def test_a_hosts_own_networks_are_kept_and_written_only_when_they_change(
    company: Company, django_assert_num_queries: Any
) -> None:
    said = {"kind": "applied", "boot": "b", "time": NOW, "version": 7, "keys": {}}
    lan = ["attached", "192.168.50.0/24", "eth0"]
    host = company.host
    reports.take_report(host, said | {"networks": [lan]}, NOW)
    assert Host.objects.get(pk=host.pk).networks == [lan]
    Host.objects.update(networks=[["router", "192.0.2.9/32", "eth1"]])  # to see a write if there is one
    reports.take_report(host, said | {"networks": [lan]}, NOW)
    assert Host.objects.get(pk=host.pk).networks == [["router", "192.0.2.9/32", "eth1"]]
    reports.take_report(host, said | {"networks": []}, NOW)
    assert Host.objects.get(pk=host.pk).networks == []
    reports.take_report(host, said, NOW)  # an older host says nothing of them


@pytest.mark.parametrize(
    "networks",
    ["x", [1], [["attached", "192.168.0.1/24", "eth0"]], [["lan", "10.0.0.0/8", "eth0"]], [["attached", "10.0.0.0/8"]],
     [["attached", "10.0.0.0/8", "<script>"]], {}],
)  # fmt: skip
def test_networks_that_cannot_be_read_change_nothing(company: Company, networks: Any) -> None:
    report(company.host, {"kind": "applied", "boot": "b", "time": NOW, "version": 7, "keys": {}, "networks": networks})
    assert reports.take_reports(NOW) == 1
    company.host.refresh_from_db()
    assert (company.host.networks, company.host.applied_version) == ([], 0)
