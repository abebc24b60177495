"""A transaction tells each host once, whatever it changes; and what protects somebody holds by every door."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction
from django.db.models import ProtectedError
from django.test import Client
from django.urls import reverse

from core.changes import after_commit
from core.models import Job
from core.task_names import CONVERGE, DISMISS, ENFORCE
from core.tasks import run_job
from servers.models import Host, PortForward, Route, Server, ServerHost
from tests.admin_site import errors, send, staff
from tests.conftest import Clock
from tests.connection_rows import live, queued
from tests.factories import Company, add_host, found
from users.models import Group, Organization, VpnUser
from wgpeers import tasks
from wgpeers.models import State


@pytest.fixture
def company(transactional_db: None, fixed_clock: Clock) -> Company:
    company = found()
    queued()
    return company


def versions() -> list[int]:
    return list(Host.objects.order_by("name").values_list("version", flat=True))


def test_a_form_with_five_routes_on_three_hosts_tells_each_host_once(client: Client, company: Company) -> None:
    for name in ("gate-2", "gate-3"):
        add_host(company.server, name)
    staff(client, superuser=True)
    queued()
    before = versions()
    rows = {"routes": [{"network": f"192.168.{number}.0/24", "nat": "on"} for number in range(5)]}
    page = f"/admin/servers/server/{company.server.pk}/change/"
    assert errors(send(client, page, mtu=1400, _inline=rows)) == {}
    assert Route.objects.count() == 5
    hosts = Host.objects.order_by("pk").values_list("pk", flat=True)
    assert sorted(queued()) == [*((CONVERGE, [host]) for host in hosts), (ENFORCE, [])]
    assert versions() == [version + 1 for version in before]


def test_what_a_rolled_back_savepoint_recorded_is_recorded_again(company: Company) -> None:
    before = versions()
    with transaction.atomic():
        with contextlib.suppress(RuntimeError), transaction.atomic():
            company.server.save()
            raise RuntimeError
        company.server.save()
        company.server.save()
    assert queued() == [(CONVERGE, [company.host.pk]), (ENFORCE, [])]
    assert versions() == [before[0] + 1]


def test_what_an_inner_transaction_recorded_is_not_lost_with_its_neighbour(company: Company) -> None:
    with transaction.atomic():
        with transaction.atomic():
            assert after_commit(ENFORCE)
        with contextlib.suppress(RuntimeError), transaction.atomic():
            assert not after_commit(ENFORCE)
            raise RuntimeError
    assert queued() == [(ENFORCE, [])]


def test_the_next_transaction_records_anew(company: Company) -> None:
    for _ in range(2):
        company.server.save()
        assert queued() == [(CONVERGE, [company.host.pk]), (ENFORCE, [])]


def by_page(client: Client, page: str, pk: int) -> None:
    client.post(f"/admin/{page}/{pk}/delete/", {"post": "yes"})


def by_action(client: Client, page: str, pk: int) -> None:
    client.post(f"/admin/{page}/", {"action": "delete_selected", "_selected_action": [pk], "post": "yes"})


MODELS = {"servers/server": Server, "servers/host": Host, "users/group": Group, "users/vpnuser": VpnUser}


def by_queryset(client: Client, page: str, pk: int) -> None:
    MODELS[page]._default_manager.filter(pk=pk).delete()


def by_model(client: Client, page: str, pk: int) -> None:
    MODELS[page]._default_manager.get(pk=pk).delete()


Delete = Callable[[Client, str, int], None]
every_door = pytest.mark.parametrize("delete", [by_page, by_action, by_queryset, by_model])


@every_door
def test_a_deleted_server_is_told_to_its_hosts(delete: Delete, client: Client, company: Company) -> None:
    staff(client, superuser=True)
    before = versions()
    delete(client, "servers/server", company.server.pk)
    assert not Server.objects.exists()
    assert sorted(queued()) == [(CONVERGE, [company.host.pk]), (ENFORCE, [])]
    assert versions() == [before[0] + 1]


@every_door
def test_a_deleted_host_is_told_so_once(delete: Delete, client: Client, company: Company) -> None:
    staff(client, superuser=True)
    delete(client, "servers/host", company.host.pk)
    assert not Host.objects.exists()
    said = queued()
    assert [arguments[0] for name, arguments in said if name == DISMISS] == [company.host.public_id]
    assert said.count((ENFORCE, [])) == 1


@every_door
def test_a_group_that_a_server_names_stays(delete: Delete, client: Client, company: Company) -> None:
    """Without its last group the server would let in everybody of its organizations."""
    staff(client, superuser=True)
    group = Group.objects.create(name="staff")
    company.server.groups.add(group)
    if delete in (by_queryset, by_model):
        with pytest.raises(ProtectedError, match="Office"):
            delete(client, "users/group", group.pk)
    else:
        delete(client, "users/group", group.pk)
    assert list(company.server.groups.all()) == [group]
    company.server.groups.remove(group)
    delete(client, "users/group", group.pk)
    assert not Group.objects.exists()


@every_door
def test_with_a_deleted_user_go_their_ports_and_connections(delete: Delete, client: Client, company: Company) -> None:
    staff(client, superuser=True)
    user, _ = company.hire("alice")
    PortForward.objects.create(server=company.server, user=user, port=8080)
    queued()
    delete(client, "users/vpnuser", user.pk)
    assert not PortForward.objects.exists()
    assert sorted(queued()) == [(CONVERGE, [company.host.pk]), (ENFORCE, [])]


RIGHTS: list[Callable[[Company, VpnUser, Group], object]] = [
    lambda company, user, group: company.server.organizations.clear(),
    lambda company, user, group: company.server.groups.add(group),
    lambda company, user, group: group.servers.set([company.server]),
    lambda company, user, group: user.groups.remove(group),
    lambda company, user, group: group.users.clear(),
    lambda company, user, group: company.organization.servers.remove(company.server),
]


@pytest.mark.parametrize("change", RIGHTS)
def test_who_may_go_where_is_checked_again_when_it_changes(
    change: Callable[[Company, VpnUser, Group], object], company: Company
) -> None:
    user, group = company.hire("alice")[0], Group.objects.create(name="staff")
    user.groups.add(group)
    queued()
    change(company, user, group)
    assert (ENFORCE, []) in queued()


def test_a_host_detached_by_a_queryset_is_told(company: Company) -> None:
    ServerHost.objects.all().delete()
    assert queued() == [(CONVERGE, [company.host.pk]), (ENFORCE, [])]


def by_form(client: Client, user: VpnUser) -> None:
    assert errors(send(client, f"/admin/users/vpnuser/{user.pk}/change/", enabled=None)) == {}


def by_list(client: Client, user: VpnUser) -> None:
    form = {"action": "disable_users", "_selected_action": [user.pk], "post": "yes"}
    client.post("/admin/users/vpnuser/", form)


def import_csv(client: Client, text: str) -> None:
    file = SimpleUploadedFile("users.csv", text.encode(), "text/csv")
    shown = client.post(reverse("admin:users_vpnuser_import_list"), {"file": file})
    client.post(shown.headers["Location"])
    run_job(Job.objects.get().pk)


def by_csv(client: Client, user: VpnUser) -> None:
    import_csv(client, f"organization,name,enabled\n{user.organization.name},{user.name},no\n")


def by_csv_of_groups(client: Client, user: VpnUser) -> None:
    Server.objects.get().groups.set([Group.objects.get(name="staff")])
    queued()
    import_csv(client, f"organization,name,groups\n{user.organization.name},{user.name},\n")


def by_save(client: Client, user: VpnUser) -> None:
    user.enabled = False
    user.save()


def by_update(client: Client, user: VpnUser) -> None:
    VpnUser.objects.filter(pk=user.pk).update(enabled=False)


def by_bulk_update(client: Client, user: VpnUser) -> None:
    user.enabled = False
    VpnUser.objects.bulk_update([user], ["enabled"])


def by_related_update(client: Client, user: VpnUser) -> None:
    user.organization.users.update(enabled=False)


def by_update_or_create(client: Client, user: VpnUser) -> None:
    VpnUser.objects.update_or_create(pk=user.pk, defaults={"enabled": False})


def by_organization_form(client: Client, user: VpnUser) -> None:
    page = f"/admin/users/organization/{user.organization_id}/change/"
    assert errors(send(client, page, enabled=None)) == {}


def by_organization_update(client: Client, user: VpnUser) -> None:
    Organization.objects.update(enabled=False)


def by_another_organization(client: Client, user: VpnUser) -> None:
    elsewhere = Organization.objects.create(name="Elsewhere")
    queued()
    VpnUser.objects.filter(pk=user.pk).update(organization=elsewhere)


DISABLE = [
    by_form,
    by_list,
    by_csv,
    by_csv_of_groups,
    by_save,
    by_update,
    by_bulk_update,
    by_related_update,
    by_update_or_create,
    by_organization_form,
    by_organization_update,
    by_another_organization,
]


@pytest.mark.parametrize("disable", DISABLE)
def test_who_is_disabled_is_disconnected_at_once_by_every_door(
    disable: Callable[[Client, VpnUser], None], client: Client, company: Company, fixed_clock: Clock
) -> None:
    staff(client, superuser=True)
    user, _ = company.hire("alice")
    user.groups.add(Group.objects.create(name="staff"))
    connection = live(company, user)
    queued()
    disable(client, user)
    assert queued().count((ENFORCE, [])) == 1
    tasks.enforce()
    connection.refresh_from_db()
    assert connection.state == State.ENDED


def test_what_machines_write_of_a_user_checks_nobody_again(company: Company) -> None:
    user, _ = company.hire("alice")
    queued()
    VpnUser.objects.filter(pk=user.pk).update(certificate="made", email="alice@example.com")
    assert queued() == []


def test_an_exemption_that_an_update_takes_away_is_checked_again(company: Company) -> None:
    user, _ = company.hire("alice")
    user.factor_overrides.create(kind="pin", state="exempt", reason="new phone")
    queued()
    user.factor_overrides.update(state="required", reason="")
    assert queued() == [(ENFORCE, [])]
