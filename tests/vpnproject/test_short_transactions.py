"""No transaction that writes grows with the size of the work: counted in statements and rows, by no clock.

Every kind of long work is walked through: each kind of job, each task of the control side, each action of a list, and
the deletion of whatever can be deleted.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.contrib.admin import site as admin_site
from django.core.management import call_command
from django.db import connection
from django.test import Client

from core import clock, task_names
from core.jobs import registry
from core.models import Job
from tests import long_work
from tests.admin_site import staff
from tests.admin_site_work import Browser, carry_out
from tests.connection_rows import queued, with_fresh_marker
from tests.factories import Company
from tests.long_work import Kind

COUNT = 120
# As slow as no database is, so that some hundred rows are many: seconds for a statement, and for each row written.
A_STATEMENT, A_ROW = 0.0002, 0.002
LONGEST, TYPICAL = 0.05, 0.03


@dataclass
class Meter:
    """A clock that nothing moves but work on the database."""

    now: float = 1000.0
    longest: float = 0.0
    all: list[float] = field(default_factory=list)  # how long each transaction that wrote took
    what: list[str] = field(default_factory=list)
    _current: float = 0.0
    _wrote: bool = False
    _statements: list[str] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def watch(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        if not connection.in_atomic_block:
            self.end()
        result = execute(sql, params, many, context)
        cost = A_STATEMENT + A_ROW * self._written(sql, context["cursor"].rowcount)
        self.now += cost
        self._current += cost
        self._wrote |= self._writes(sql)
        self._statements.append(sql)
        if self._current > self.longest and connection.in_atomic_block | self._writes(sql):
            self.longest, self.what = self._current, list(self._statements)
        return result

    def end(self) -> None:
        if self._wrote:
            self.all.append(self._current)
        self._current, self._wrote = 0.0, False
        self._statements.clear()

    @staticmethod
    def _writes(sql: str) -> bool:
        return sql.startswith(("INSERT", "UPDATE", "DELETE"))

    def _written(self, sql: str, rowcount: int) -> int:
        if not self._writes(sql):
            return 0
        return max(rowcount, sql.count("), (") + 1 if sql.startswith("INSERT") else 0)

    def said(self) -> str:
        shapes = [re.sub(r"\s+", " ", sql)[:90] for sql in self.what]
        return f"{self.longest:.3f} s in {len(shapes)} statements: {shapes[:3]} … {shapes[-3:]}"


@pytest.fixture
def meter(company: Company, monkeypatch: pytest.MonkeyPatch) -> Meter:
    found = Meter()
    commit = connection._commit  # type: ignore[attr-defined]

    def committed() -> None:
        commit()
        found.end()

    monkeypatch.setattr(connection, "_commit", committed)
    monkeypatch.setattr(clock, "steady_source", found)
    monkeypatch.setattr("time.sleep", found.sleep)
    return found


KINDS = long_work.kinds(COUNT)


# What walks through what. Of anything that is new here, somebody has to say which kind of long work it is.
JOBS = {
    "core.delete": "delete",
    "servers.set_started": "start servers, stop servers",
    "users.import": "import",
    "users.set_enabled": "enable, disable",
    "wgpeers.disconnect": "disconnect",
}
ONE_ROW = "one row"
TASKS = {
    task_names.MAKE_USER_KEY: ONE_ROW,
    task_names.MAKE_ORGANIZATION_CA: ONE_ROW,
    task_names.MAKE_MISSING: ONE_ROW,
    task_names.CONVERGE: ONE_ROW,
    task_names.CUT_OFF: ONE_ROW,
    task_names.SPREAD: ONE_ROW,
    task_names.ASK_AGAIN: ONE_ROW,  # in a transaction of its own
    task_names.CONVERGE_ALL: "organization off",
    task_names.DISMISS: ONE_ROW,
    task_names.ENFORCE: "organization off",
    task_names.TAKE_REPORTS: "report of removed",
    task_names.SWEEP: "silent",
    task_names.PRUNE: "prune",
    task_names.RUN_JOB: "import",
    task_names.RESUME_JOBS: ONE_ROW,
}
ACTIONS = {
    "disable_users": "disable",
    "disconnect_them": "disconnect",
    "enable_users": "enable",
    "start_servers": "start servers",
    "stop_servers": "stop servers",
    "delete_selected": "delete users",
}
NOTHING_HANGS_ON_IT = "nothing hangs on it"
DELETABLE = {
    "auth.group": NOTHING_HANGS_ON_IT,
    "auth.user": "delete administrator",
    "servers.clientnetwork": NOTHING_HANGS_ON_IT,
    "servers.clientregion": NOTHING_HANGS_ON_IT,
    "servers.host": "delete host",
    "servers.portforward": NOTHING_HANGS_ON_IT,
    "servers.server": "delete server",
    "servers.outsidelink": NOTHING_HANGS_ON_IT,
    "servers.serverlink": NOTHING_HANGS_ON_IT,
    "users.group": "delete group",
    "users.organization": "delete organization",
    "users.provider": NOTHING_HANGS_ON_IT,  # a server that asks it would keep it
    "users.vpnuser": "delete user with much",
}


def test_everything_that_may_be_long_is_walked_through(client: Client, company: Company, rf: Any) -> None:
    assert set(JOBS) == set(registry._kinds)
    assert set(TASKS) == {value for name, value in vars(task_names).items() if name.isupper()}
    request = rf.get("/")
    request.user = staff(client, superuser=True)
    pages = admin_site._registry.items()
    assert set(ACTIONS) == {name for _, page in pages for name in page.get_actions(request)}
    assert set(DELETABLE) == {model._meta.label_lower for model, page in pages if page.has_delete_permission(request)}
    named = {kind.name for kind in KINDS} | {ONE_ROW, NOTHING_HANGS_ON_IT, "delete"}
    for table in (JOBS, TASKS, ACTIONS, DELETABLE):
        assert {name for text in table.values() for name in text.split(", ")} <= named


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_transaction_grows_with_the_work(kind: Kind, client: Client, company: Company, meter: Meter) -> None:
    staff(client, superuser=True)
    with_fresh_marker()
    branch = long_work.branch_of(company)
    kind.prepare(branch, COUNT)
    queued()
    with connection.execute_wrapper(meter.watch):
        kind.ask(Browser(client), branch)
        carry_out(kind, branch)
    meter.end()
    assert 0 < meter.longest < LONGEST, meter.said()
    assert statistics.median(meter.all) < TYPICAL
    for job in Job.objects.exclude(kind="-"):
        assert any(kind.name.startswith(name) for name in JOBS[job.kind].split(", ")) or kind.name == "preview"


def test_new_keys_are_taken_row_by_row(company: Company, meter: Meter) -> None:
    long_work.people(long_work.branch_of(company), COUNT)
    with connection.execute_wrapper(meter.watch):
        call_command("rotate_keys", verbosity=0)
    assert meter.longest < LONGEST, meter.said()
