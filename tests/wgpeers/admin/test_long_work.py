"""What an administrator does to thousands of rows: asked before, carried out in the background, said once; and what is
deleted leaves its history."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from core import clock, deletion
from core.admin import bulk
from core.models import Job, JobState
from core.tasks import run_job
from servers.models import Address, Server
from tests import connection_rows
from tests.admin_site import messages, queued, staff
from tests.conftest import Clock
from tests.factories import Company
from users.models import Organization, VpnUser
from wgpeers.lifecycle import reaper
from wgpeers.models import Connection, Decision, EndReason, State

USERS, SERVERS = "/admin/users/vpnuser/", "/admin/servers/server/"


@pytest.fixture
def admin(client: Client, company: Company, fixed_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Client:
    """Five rows are many here."""
    monkeypatch.setattr(bulk, "FEW", 5)
    monkeypatch.setattr(deletion, "FEW", 5)
    staff(client, superuser=True)
    return client


def finish() -> None:
    """Carry out all that is under way, as the worker does, turn by turn."""
    while job := Job.objects.filter(state=JobState.QUEUED).first():
        run_job(job.pk)


def users(company: Company, count: int) -> list[VpnUser]:
    return VpnUser.objects.bulk_create(
        VpnUser(organization=company.organization, name=f"user{number:03}") for number in range(count)
    )


def selected(action: str, rows: list[Any], **more: str) -> dict[str, Any]:
    """The list's form, as the browser sends it: one row of those that are shown, and all that match."""
    return {"action": action, "_selected_action": [rows[0].pk], "select_across": "1", **more}


def past(company: Company, user: VpnUser, count: int) -> None:
    """Connections that have ended, and their decisions."""
    when = clock.moment(clock.now())
    Connection.objects.bulk_create(
        Connection(
            user=user, user_name=user.name, server=company.server, server_name="office", host=company.host,
            host_name=company.host.name, state=State.ENDED, end_reason=EndReason.SILENT, device_id="d",
            wg_public_key="k", host_part=2, address="10.9.0.2", created=when, ended=when,
        )
        for _ in range(count)
    )  # fmt: skip
    Decision.objects.create(
        time=when, user=user, user_name=user.name, server=company.server, server_name="office", layer="x", code="ok"
    )


def test_many_are_disabled_after_a_question_in_the_background_with_one_message(admin: Client, company: Company) -> None:
    rows = users(company, 40)
    question = admin.post(USERS, selected("disable_users", rows)).content.decode()
    assert "Disable 40 users?" in question
    assert "and 20 more" in question
    assert not VpnUser.objects.filter(enabled=False).exists()
    said = messages(admin, USERS, selected("disable_users", rows, post="yes"))
    job = Job.objects.get()
    assert said.startswith("Disable 40 users is under way.")
    assert f"/admin/core/job/{job.pk}/change/" in said
    assert "core.run_job" in queued()
    finish()
    assert not VpnUser.objects.filter(enabled=True).exists()
    job.refresh_from_db()
    assert (job.state, job.done) == (JobState.DONE, 40)
    assert LogEntry.objects.filter(change_message="Disabled.").count() == 40
    assert "wgpeers.enforce" in queued()


def test_a_job_goes_on_when_the_administrator_who_asked_for_it_was_deleted(admin: Client, company: Company) -> None:
    messages(admin, USERS, selected("disable_users", users(company, 40), post="yes"))
    User.objects.all().delete()
    finish()
    assert not VpnUser.objects.filter(enabled=True).exists()
    job = Job.objects.get()
    assert (job.state, job.administrator_name) == (JobState.DONE, "superuser")


def test_many_are_disconnected_in_the_background(admin: Client, company: Company) -> None:
    rows = connection_rows.many(company, 8)
    said = messages(admin, "/admin/wgpeers/connection/", selected("disconnect_them", rows, post="yes"))
    assert "Disconnect 8 connections is under way" in said
    finish()
    assert set(Connection.objects.values_list("state", "end_reason")) == {("ended", "admin")}


def test_a_page_that_asks_counts_and_loads_nothing(
    admin: Client, company: Company, django_assert_max_num_queries: Any
) -> None:
    user = company.hire("alice")[0]
    past(company, user, 500)
    for address in (f"{SERVERS}{company.server.pk}/delete/", f"{USERS}{user.pk}/delete/"):
        with django_assert_max_num_queries(40):
            page = admin.get(address).content.decode()
        assert "Connection" not in page.partition("</nav>")[2].partition("Summary")[2]


@pytest.mark.parametrize("what", ["server", "user", "host", "organization"])
def test_history_outlives_what_it_is_about_with_its_names(admin: Client, company: Company, what: str) -> None:
    user = company.hire("alice")[0]
    past(company, user, 3)
    row: Any = {
        "server": company.server,
        "user": user,
        "host": company.host,
        "organization": company.organization,
    }[what]
    address = f"/admin/{row._meta.app_label}/{row._meta.model_name}/{row.pk}/delete/"
    assert admin.post(address, {"post": "yes"}).status_code == 302
    finish()
    assert not type(row).objects.filter(pk=row.pk).exists()
    assert Connection.objects.count() == 3
    shown = admin.get("/admin/wgpeers/connection/?show=ended").content.decode()
    for name in ("alice", "office", company.host.name):
        assert name in shown
    one = Connection.objects.first()
    assert one is not None
    assert admin.get(f"/admin/wgpeers/connection/{one.pk}/change/").status_code == 200
    assert admin.get(f"/admin/wgpeers/decision/{Decision.objects.get().pk}/change/").status_code == 200
    assert admin.get("/admin/wgpeers/decision/").status_code == 200
    # The sweeps go over all of it and find nothing amiss.
    assert reaper.enforce(clock.now()) == 0
    assert reaper.sweep(clock.now()) == 0


def test_a_long_deletion_lets_nobody_in_and_ends_who_is_there_before_it_is_done(
    admin: Client, company: Company
) -> None:
    live = connection_rows.many(company, 12)
    said = messages(admin, f"{SERVERS}{company.server.pk}/delete/", {"post": "yes"})
    assert f"Delete {company.server} is under way" in said
    company.server.refresh_from_db()
    assert not company.server.started
    job = Job.objects.get()
    finish()
    job.refresh_from_db()
    assert job.state == JobState.DONE
    assert not Server.objects.exists()
    assert not Address.objects.exists()
    assert Connection.objects.filter(state=State.ENDED, end_reason=EndReason.STOPPED).count() == len(live)
    assert LogEntry.objects.filter(action_flag=3, object_repr=str(company.server)).count() == 1


def test_an_organization_with_many_users_goes_in_steps(admin: Client, company: Company) -> None:
    users(company, 30)
    admin.post(f"/admin/users/organization/{company.organization.pk}/delete/", {"post": "yes"})
    company.organization.refresh_from_db()
    assert not company.organization.enabled
    finish()
    assert not Organization.objects.exists()
    assert not VpnUser.objects.exists()


def test_selected_ones_are_deleted_after_a_question(admin: Client, company: Company) -> None:
    rows = users(company, 30)
    page = admin.post(USERS, selected("delete_selected", rows)).content.decode()
    assert "Delete 30 users?" in page
    assert VpnUser.objects.count() == 30
    assert "Delete 30 users is under way" in messages(admin, USERS, selected("delete_selected", rows, post="yes"))
    assert not VpnUser.objects.filter(enabled=True).exists()
    finish()
    assert not VpnUser.objects.exists()


def test_deleting_a_server_looks_at_nothing_of_its_history(admin: Client, company: Company) -> None:
    past(company, company.hire("alice")[0], 10)
    asked: list[tuple[str, Any]] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith(("SELECT", "UPDATE", "DELETE")) and '"wgpeers_connection"' in sql:
            asked.append((sql, params))
        return execute(sql, params, many, context)

    address = f"{SERVERS}{company.server.pk}/delete/"
    with connection.execute_wrapper(note):
        admin.get(address)
        admin.post(address, {"post": "yes"})
        finish()
    assert not Server.objects.exists()
    assert asked
    if connection.vendor != "sqlite":
        return  # goes by statistics, of which a small table has none
    for sql, params in asked:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}", params)
            plans = [str(row[3]) for row in cursor.fetchall()]
        steps = [plan for plan in plans if "wgpeers_connection" in plan]
        # By a key that each row has alone, or by an index of those who are connected.
        assert all("one_connection" in step or "live_of" in step or "rowid=?" in step for step in steps), (sql, plans)
