"""Saving a form: what the database refuses is said, and the history has what was before and what is now."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin import ModelAdmin, site
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group as Role
from django.contrib.auth.models import User
from django.db import IntegrityError
from django.test import Client
from django.utils.html import escape

from core.admin.saving import CONFLICT, _may_be_shown, changes
from core.crypto import SecretField
from servers import mesh
from servers.admin.addresses import AddressesMixin
from servers.models import ClientNetwork, ClientRegion, Host, OutsideLink, PortForward, Server, ServerHost, ServerLink
from tests.admin_site import send, staff
from tests.factories import unknown_provider
from users.models import Group, Organization, VpnUser

pytestmark = pytest.mark.django_db
# A field of two parts, which ``send`` does not know.
JOINED = {"date_joined_0": "2026-11-27", "date_joined_1": "12:00:00"}


@pytest.fixture
def admin(client: Client) -> Client:
    staff(client, superuser=True)
    return client


@pytest.fixture
def world(admin: Client) -> dict[str, str]:
    """A page of each kind that has a form."""
    acme = Organization.objects.create(name="Acme")
    alice = VpnUser.objects.create(organization=acme, name="alice")
    server = Server.objects.create(name="Office", network="10.8.0.0/24", wg_network="10.9.0.0/24")
    host = Host.objects.create(name="gate-1", public_address="192.0.2.1")
    ServerHost.objects.create(server=server, host=host)
    annex = Server.objects.create(name="Annex", network="10.18.0.0/24", wg_network="10.19.0.0/24", port=51821)
    ServerHost.objects.create(server=annex, host=host)
    rows = [
        acme,
        alice,
        server,
        host,
        Group.objects.create(name="staff"),
        PortForward.objects.create(server=server, user=alice, port=8080),
        ClientNetwork.objects.create(server=server, user=alice, network="192.168.7.0/24"),
        User.objects.create_user("carol", password="correct horse battery"),
        Role.objects.create(name="helpdesk"),
        mesh.the_mesh(),
        ServerLink.objects.create(first=server, second=annex),
        OutsideLink.objects.create(server=annex, name="Acme", ours="10.19.0.0/24", theirs="10.60.0.0/16"),
        ClientRegion.objects.create(network="203.0.113.0/24", region="north"),
        unknown_provider(),
    ]
    return {row._meta.label_lower: f"/admin/{row._meta.label_lower.replace('.', '/')}/{row.pk}/change/" for row in rows}


def test_every_page_that_has_a_form_is_in_this_test(world: dict[str, str], admin: Client) -> None:
    request = admin.get("/admin/").wsgi_request
    with_form = {page.opts.label_lower for page in site._registry.values() if page.has_change_permission(request)}
    assert with_form - {"core.job"} == set(world)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database refuses each save at its end, as when another one was faster."""

    def refuse(*_: object, **__: object) -> None:
        raise IntegrityError("UNIQUE constraint failed: servers_route.server_id, servers_route.network")

    for page in site._registry.values():
        monkeypatch.setattr(type(page), "save_related", refuse)


@pytest.mark.usefixtures("refused")
def test_what_the_database_refuses_is_an_error_of_the_form_on_every_page(world: dict[str, str], admin: Client) -> None:
    for page in world.values():
        answer = send(admin, page, **JOINED)
        assert answer.status_code == 200, page
        assert escape(CONFLICT) in answer.content.decode(), page
        assert "UNIQUE" not in answer.content.decode()
    answer = send(admin, "/admin/users/group/add/", name="another")
    assert escape(CONFLICT) in answer.content.decode()
    assert not Group.objects.filter(name="another").exists()
    assert not LogEntry.objects.exists()


def test_rows_that_two_administrators_add_at_the_same_moment_are_a_form_error(
    world: dict[str, str], admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one's form was checked before the first one's row was there."""
    server, host = Server.objects.get(name="Office"), Host.objects.create(name="gate-2", public_address="192.0.2.2")
    real = ModelAdmin.save_related

    def first_the_other_one(self: Any, request: Any, form: Any, *rest: Any) -> None:
        ServerHost.objects.create(server=server, host=host)
        real(self, request, form, *rest)

    monkeypatch.setattr(ModelAdmin, "save_related", first_the_other_one)
    answer = send(admin, world["servers.server"], _inline={"attachments": [{"host": host.pk, "server": server.pk}]})
    assert answer.status_code == 200
    assert escape(CONFLICT) in answer.content.decode()


def test_a_button_that_meets_a_constraint_says_so(
    world: dict[str, str], admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise IntegrityError("UNIQUE constraint failed")

    refuse.post_permission = "users.change_vpnuser"  # type: ignore[attr-defined]
    monkeypatch.setattr(AddressesMixin, "set_address", refuse)
    answer = admin.post(world["users.vpnuser"].replace("change/", "do/set_address/"), follow=True)
    assert answer.status_code == 200
    assert escape(CONFLICT) in answer.content.decode()


def history() -> str:
    return LogEntry.objects.latest("pk").get_change_message()


def test_the_history_has_old_and_new_values(world: dict[str, str], admin: Client) -> None:
    send(admin, world["servers.server"], name="Lab", port=51900)
    assert history() == "Changed Name (“Office” → “Lab”) and WireGuard port (“51820” → “51900”)."
    group = Group.objects.get()
    send(admin, world["users.vpnuser"], email="alice@example.com", groups=[group.pk])
    assert history() == "Changed Email (empty → “alice@example.com”) and Groups (empty → “staff”)."
    send(admin, world["users.vpnuser"], enabled=None, groups=[])
    assert history() == "Changed Groups (“staff” → empty) and Enabled (on → off)."
    host = Host.objects.create(name="gate-2", public_address="192.0.2.2")
    send(admin, world["servers.server"], **{"attachments-0-host": host.pk})
    assert "Host (“gate-1” → “gate-2”)" in history()
    assert "“gate-1” → “gate-2”" in admin.get(world["servers.server"].replace("change", "history")).content.decode()
    send(admin, world["servers.portforward"], protocol="udp")
    assert history() == "Changed Protocol (“TCP” → “UDP”)."


def test_the_history_has_rows_that_were_added_changed_and_deleted(world: dict[str, str], admin: Client) -> None:
    new = [{"network": "192.168.1.0/24", "metric": 5}]
    send(admin, world["servers.server"], _inline={"routes": new})
    assert "Added route “192.168.1.0/24”." in history()
    send(admin, world["servers.server"], **{"routes-0-network": "192.168.2.0/24"})
    assert "for route “192.168.2.0/24”" in history()
    assert "Network (“192.168.1.0/24” → “192.168.2.0/24”)" in history()
    send(admin, world["servers.server"], **{"routes-0-DELETE": "on"})
    assert history() == "Deleted route “192.168.2.0/24”."


def test_no_secret_is_in_the_history(world: dict[str, str], admin: Client) -> None:
    """Of no model, should one of its secrets ever be in a form."""
    from django import forms
    from django.apps import apps

    for model in apps.get_models():
        kind = type("Meta", (), {"model": model, "fields": []})
        form = type("Form", (forms.ModelForm,), {"Meta": kind})()
        for column in model._meta.concrete_fields:
            if isinstance(column, SecretField) or column.name in {"password", "hash", "ca_private_key"}:
                form.fields[column.name] = forms.CharField()
                form.changed_data = [column.name]
                assert "→" not in changes(form)[0], column
        form.fields["of_no_column"] = forms.CharField()
        assert not _may_be_shown(form, "of_no_column", form.fields["of_no_column"])
    fields = {"usable_password": "true", "password1": "a long enough one", "password2": "a long enough one"}
    assert admin.post(f"/admin/auth/user/{User.objects.get(username='carol').pk}/password/", fields).status_code == 302
    assert "long enough" not in history()
