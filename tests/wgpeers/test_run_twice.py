"""What the beat sends may come twice, also at the same moment on two control nodes: it does no more than once."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.db import DatabaseError
from django.db import connection as database

from core.clock import moment
from core.models import Job, JobArguments
from core.redis_store import redis_client
from servers.models import ClientNetwork, Host
from tests.concurrency import together
from tests.conftest import Clock
from tests.connection_rows import live, messages, queued, with_fresh_marker
from tests.factories import Company, found, revive
from tests.protocol_client import NOW
from users.models import VpnUser
from vpnproject import celery_app
from wgpeers.fleet import reports
from wgpeers.lifecycle import liveness
from wgpeers.models import Connection, Decision, State

celery_app.loader.import_default_modules()
TASKS = sorted(entry["task"] for entry in celery_app.conf.beat_schedule.values())
# Rows that say when something was done, and of which each run makes its own.
MOMENTS = {"ended", "removed", "stepped", "applied_at", "drift_at", "active_since"}


@pytest.fixture
def company(transactional_db: None, fixed_clock: Clock) -> Company:
    """Of each kind something that is due for a sweep."""
    company = found()
    revive(company.host)
    with_fresh_marker()
    people = [company.hire(name)[0] for name in ("silent", "late", "gone", "lost", "fine", "lan")]
    silent, late, _gone, lost, fine, lan = (live(company, user) for user in people)
    redis_client().zadd(liveness.DEADLINES, {silent.public_id: NOW - 1})
    Connection.objects.filter(pk=late.pk).update(session_ends=moment(NOW - 1))
    Connection.objects.filter(pk=lost.pk).update(state=State.PENDING, created=moment(NOW - 60))
    VpnUser.objects.filter(name="gone").update(enabled=False)  # past the model
    redis_client().zrem(liveness.DEADLINES, fine.public_id)
    ClientNetwork.objects.create(server=company.server, user=people[5], network="10.77.0.0/24")
    Decision.objects.create(
        time=moment(NOW) - timedelta(days=400), last=moment(NOW), code="x", layer="pin", allowed=False
    )
    arguments = {"keys": [lan.user_id], "enabled": True}
    job = Job.objects.create(kind="users.set_enabled", title="x", total=1, created=moment(NOW))
    JobArguments.objects.create(job=job, arguments=arguments)
    company.host.refresh_from_db()
    for report in (
        {"kind": "hello", "boot": "b2", "time": NOW},
        {"kind": "applied", "boot": "b2", "time": NOW, "version": 7, "drift": ["x"]},
    ):
        redis_client().rpush(f"{company.host.queue}:reports", json.dumps(report))
    queued()
    messages(company.host)
    return company


def rows() -> dict[str, list[dict[str, Any]]]:
    """Everything that the database holds, but for versions of hosts, which count how often something was sent."""
    models = [model for model in apps.get_models() if model._meta.app_label in {"core", "users", "servers", "wgpeers"}]
    skip = MOMENTS | {"version"}
    return {
        model.__name__: [
            {name: value for name, value in row.items() if name not in skip}
            for row in model._default_manager.order_by("pk").values()
        ]
        for model in models
    }


@pytest.mark.parametrize("task", TASKS)
def test_at_the_same_moment_and_once_more(company: Company, task: str) -> None:
    run = celery_app.tasks[task]
    assert together([run, run]) == [None, None]
    once = rows()
    sent = [message for message in messages(company.host) if "connections" in message]
    told = Counter(name for message in sent for name in message["connections"])
    assert set(told.values()) <= {1}
    ended = Counter(Decision.objects.exclude(code="x").values_list("user_name", "code"))
    assert set(ended.values()) <= {1}
    deadlines = redis_client().zrange(liveness.DEADLINES, 0, -1, withscores=True)
    run()
    assert rows() == once
    assert [message for message in messages(company.host) if "connections" in message] == []
    assert redis_client().zrange(liveness.DEADLINES, 0, -1, withscores=True) == deadlines


def test_there_was_something_to_do(company: Company) -> None:
    """Else the test above would say nothing."""
    before = rows()
    for task in TASKS:
        celery_app.tasks[task]()
    after = rows()
    states = dict(Connection.objects.values_list("user_name", "end_reason"))
    assert {name.split()[0]: reason for name, reason in states.items()} == {
        "silent": "silent",
        "late": "session_timeout",
        "gone": "not_permitted",
        "lost": "unconfirmed",
        "fine": "",
        "lan": "",
    }
    assert {name for name in before if before[name] != after[name]} >= {"Connection", "Decision", "Host"}
    company.host.refresh_from_db()
    assert (company.host.boot, company.host.applied_version) == ("b2", 7)


def test_reports_are_taken_by_one_worker_at_a_time(company: Company) -> None:
    theirs = type(reports._turn)("reports", 10.0)
    assert theirs.hold()  # another node's
    assert reports.take_reports(NOW) == 0
    theirs.release()
    assert reports.take_reports(NOW) == 2


def test_a_database_that_takes_nothing_loses_no_report(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when its primary has just died."""
    texts = redis_client().lrange(f"{company.host.queue}:reports", 0, -1)

    def refuse(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith("UPDATE") and "applied_version" in sql:
            raise DatabaseError("no")
        return execute(sql, *rest)

    with database.execute_wrapper(refuse), pytest.raises(DatabaseError):
        reports.take_reports(NOW)
    assert redis_client().lrange(f"{company.host.queue}:reports", 0, -1) == texts[1:]
    assert reports.take_reports(NOW) == 1
    assert Host.objects.get().applied_version == 7
