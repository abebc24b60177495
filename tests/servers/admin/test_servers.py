"""Servers and hosts: started, stopped and deleted from the admin, and what their hosts are told of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.conf import LazySettings
from django.db.models import F
from django.test import Client

from core import task_names
from core.redis_store import redis_client
from servers.models import Host, Server, ServerHost
from servers.networks import FIRST_HOST_PART
from tests import connection_rows
from tests.admin_site import errors, messages, queued, send, staff
from tests.conftest import Clock
from tests.factories import revive
from users.models import Group, Organization, VpnUser
from wgpeers import tasks
from wgpeers.lifecycle.reaper import enforce
from wgpeers.models import Connection, Decision, SpentKey, State

SERVERS, HOSTS = "/admin/servers/server/", "/admin/servers/host/"


@pytest.fixture
def admin(client: Client, transactional_db: None, fixed_clock: Clock) -> Client:
    staff(client, superuser=True)
    return client


@pytest.fixture
def server(admin: Client) -> Server:
    server = Server.objects.create(name="office", network="10.8.0.0/24", wg_network="10.9.0.0/24")
    ServerHost.objects.create(server=server, host=Host.objects.create(name="h1", public_address="192.0.2.1"))
    server.organizations.add(Organization.objects.create(name="Org"))
    redis_client().flushall()
    return server


def connect(server: Server, **fields: Any) -> Connection:
    user = VpnUser.objects.create(organization=Organization.objects.get(), name="alice")
    from servers.addresses import static_address

    address = static_address(server, user)
    common = {
        "user": user,
        "user_name": "alice (Org)",
        "server": server,
        "server_name": server.name,
        "host": Host.objects.get(),
        "state": State.OPEN,
    }
    place = {"host_part": address.host_part, "address": address.address, "device_id": "d", "wg_public_key": "k" * 44}
    return Connection.objects.create(**common | place | {"created": user.created} | fields)


def version() -> int:
    return Host.objects.get().version


def test_start_and_stop_tell_the_hosts_and_change_the_badge(admin: Client, server: Server) -> None:
    page = f"{SERVERS}{server.pk}/change/"
    assert "stopped" in admin.get(page).content.decode()
    before = version()
    assert "Started office" in messages(admin, f"{SERVERS}{server.pk}/do/start/")
    server.refresh_from_db()
    assert (server.started, version()) == (True, before + 1)
    assert "wgpeers.converge" in queued()
    assert admin.get(page).context["page_state"] == ("warning", "no host seen yet")
    revive(Host.objects.get())
    assert admin.get(page).context["page_state"] == ("success", "running")
    redis_client().flushall()
    assert "Stopped office" in messages(admin, f"{SERVERS}{server.pk}/do/stop/")
    server.refresh_from_db()
    assert not server.started
    assert {"wgpeers.converge", "wgpeers.enforce"} <= set(queued())
    assert admin.get(page).context["page_state"] == ("default", "stopped")


def test_a_server_without_wireguard_is_not_started_and_without_a_host_is_warned_of(
    admin: Client, server: Server
) -> None:
    assert errors(send(admin, f"{SERVERS}{server.pk}/change/", wireguard=None)) == {}
    assert "turn WireGuard on first" in messages(admin, f"{SERVERS}{server.pk}/do/start/")
    assert not Server.objects.get().started
    assert errors(send(admin, f"{SERVERS}{server.pk}/change/", wireguard="on")) == {}
    ServerHost.objects.all().delete()
    assert "no enabled host yet" in messages(admin, f"{SERVERS}{server.pk}/do/start/")


def test_servers_are_started_and_stopped_from_the_list(admin: Client, server: Server) -> None:
    for action, started in (("start_servers", True), ("stop_servers", False)):
        said = messages(admin, SERVERS, {"action": action, "_selected_action": [server.pk], "post": "yes"})
        assert said == f"{'Started' if started else 'Stopped'} 1 server."
        server.refresh_from_db()
        assert server.started is started
    assert f'formaction="{SERVERS}{server.pk}/do/start/"' in admin.get(SERVERS).content.decode()


def test_a_button_leads_back_to_where_it_was_but_never_elsewhere(admin: Client, server: Server) -> None:
    start = f"{SERVERS}{server.pk}/do/start/"
    listed = "http://testserver/admin/servers/server/?q=office"
    assert admin.post(start, HTTP_REFERER=listed).headers["Location"] == listed
    elsewhere = admin.post(start, HTTP_REFERER="https://evil.example/").headers["Location"]
    assert elsewhere == f"{SERVERS}{server.pk}/change/"


def test_saving_a_form_does_not_turn_counters_back(admin: Client, server: Server) -> None:
    """Addresses are given and versions raised between the moment the form's row is read and the moment it is saved."""
    from django.contrib.admin.options import ModelAdmin

    read = ModelAdmin.get_object

    def read_then_move(self: Any, request: Any, object_id: str, *rest: Any) -> Any:
        found = read(self, request, object_id, *rest)
        Server.objects.update(next_host_part=F("next_host_part") + 5)
        Host.objects.update(version=F("version") + 5, boot="new")
        return found

    for page, field in ((f"{SERVERS}{server.pk}/change/", "mtu"), (f"{HOSTS}{Host.objects.get().pk}/change/", "name")):
        before = (Server.objects.get().next_host_part, version())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ModelAdmin, "get_object", read_then_move)
            assert errors(send(admin, page, **{field: 1400})) == {}
        assert Server.objects.get().next_host_part >= before[0] + 5
        assert version() >= before[1] + 5
    assert Server.objects.get().next_host_part > FIRST_HOST_PART
    assert (Server.objects.get().mtu, Host.objects.get().name, Host.objects.get().boot) == (1400, "1400", "new")


def test_who_may_use_a_server_is_enforced_when_it_changes(admin: Client, server: Server) -> None:
    group = Group.objects.create(name="staff")
    page = f"{SERVERS}{server.pk}/change/"
    changes: list[dict[str, Any]] = [{"groups": [group.pk]}, {"organizations": []}]
    for change in changes:
        redis_client().flushall()
        assert errors(send(admin, page, **change)) == {}
        assert "wgpeers.enforce" in queued()


def test_detaching_a_host_tells_it(admin: Client, server: Server) -> None:
    before = version()
    assert errors(send(admin, f"{SERVERS}{server.pk}/change/", **{"attachments-0-DELETE": "on"})) == {}
    assert not ServerHost.objects.exists()
    assert version() > before
    assert {"wgpeers.converge", "wgpeers.enforce"} <= set(queued())


@pytest.mark.parametrize("way", ["page", "list"])
def test_deleting_a_server_ends_its_connections_keeps_them_as_history_and_tells_its_hosts(
    admin: Client, server: Server, way: str
) -> None:
    connection = connect(server)
    SpentKey.objects.create(digest=b"1" * 32, connection=connection, created=connection.created)
    before = version()
    redis_client().flushall()
    page = admin.get(f"{SERVERS}{server.pk}/delete/").content.decode()
    assert "cannot be deleted" not in page.lower()
    if way == "page":
        admin.post(f"{SERVERS}{server.pk}/delete/", {"post": "yes"})
    else:
        admin.post(SERVERS, {"action": "delete_selected", "_selected_action": [server.pk], "post": "yes"})
    assert not Server.objects.exists()
    row = Connection.objects.select_related("server").get()
    assert (row.state, row.end_reason, row.server_name, row.server) == (State.ENDED, "server_stopped", "office", None)
    for page in ("/admin/wgpeers/connection/?show=ended", f"/admin/wgpeers/connection/{row.pk}/change/"):
        assert "office" in admin.get(page).content.decode()
    assert SpentKey.objects.count() == 1
    assert version() > before
    assert "wgpeers.converge" in queued()


def test_deleting_a_host_takes_its_tunnels_down_and_ends_its_connections(admin: Client, server: Server) -> None:
    Server.objects.update(started=True)
    connection = connect(server)
    host = Host.objects.get()
    Host.objects.update(boot="this-run")
    admin.post(f"{HOSTS}{host.pk}/delete/", {"post": "yes"})
    assert not Host.objects.exists()
    (told,) = [arguments for name, arguments in connection_rows.queued() if name == task_names.DISMISS]
    tasks.dismiss(*told)
    last = json.loads(redis_client().lindex(host.queue, 0) or "")
    assert last["headers"]["task"] == "hostnet.full_state"
    import base64

    (state,), _, _ = json.loads(base64.b64decode(last["body"]))
    assert (state["host"], state["boot"], state["interfaces"]) == (host.public_id, "this-run", [])
    assert state["version"] > host.version
    enforce(connection.created.timestamp() + 1)
    connection.refresh_from_db()
    assert (connection.state, connection.end_reason) == (State.ENDED, "server_stopped")


def test_deleting_a_user_ends_their_connection_and_keeps_the_history(admin: Client, server: Server) -> None:
    Server.objects.update(started=True)
    connection = connect(server)
    admin.post(f"/admin/users/vpnuser/{connection.user_id}/delete/", {"post": "yes"})
    assert not VpnUser.objects.exists()
    enforce(connection.created.timestamp() + 1)
    connection.refresh_from_db()
    assert (connection.state, connection.user_name) == (State.ENDED, "alice (Org)")
    assert Decision.objects.get().code == "not_permitted"


@pytest.mark.parametrize("way", ["page", "list"])
def test_the_group_that_a_server_names_cannot_be_deleted(admin: Client, server: Server, way: str) -> None:
    """Without its last group the server would let in everybody of its organizations."""
    group = Group.objects.create(name="staff")
    server.groups.add(group)
    if way == "page":
        admin.post(f"/admin/users/group/{group.pk}/delete/", {"post": "yes"})
    else:
        data = {"action": "delete_selected", "_selected_action": [group.pk], "post": "yes"}
        admin.post("/admin/users/group/", data)
    assert Group.objects.filter(pk=group.pk).exists()
    server.groups.clear()
    admin.post(f"/admin/users/group/{group.pk}/delete/", {"post": "yes"})
    assert not Group.objects.exists()


BROKEN = {"code": "firewall_failed", "severity": "error", "text": "nft: no"}
SHUT = {"code": "foreign_firewall", "severity": "warning", "text": "ufw drops"}


def test_a_host_says_how_it_is_in_words(admin: Client, server: Server, fixed_clock: Clock) -> None:
    host = Host.objects.get()
    page = f"{HOSTS}{host.pk}/change/"
    assert admin.get(page).context["page_state"] == ("warning", "not seen yet")
    Host.objects.update(boot="b", backend="kernel", drift="a route was missing", conditions=[BROKEN, SHUT])
    assert admin.get(page).context["page_state"] == ("danger", "silent")
    redis_client().set(f"{host.queue}:alive", json.dumps({"boot": "b", "peers": 3}))
    shown = admin.get(page).content.decode()
    assert admin.get(page).context["page_state"] == ("warning", "late: no new clients")
    redis_client().set(f"{host.queue}:fresh", "1")
    assert admin.get(page).context["page_state"] == ("success", "alive")
    for words in ("kernel, 3 peers", "a route was missing", "nft: no", host.public_id, "manage.py hostplan"):
        assert words in shown
    assert all(each[key] in shown for each in (BROKEN, SHUT) for key in each)
    assert "error: firewall_failed and 1 more" in admin.get(HOSTS).content.decode()
    Host.objects.update(conditions=[SHUT])
    assert "warning: foreign_firewall" in admin.get(HOSTS).content.decode()


def test_pages_of_hosts_open_while_redis_is_away(admin: Client, server: Server, settings: Any) -> None:
    settings.REDIS_URL = "unix:///nowhere/redis.sock?db=0"
    for page in (HOSTS, f"{HOSTS}{Host.objects.get().pk}/change/", "/admin/", "/admin/wgpeers/connection/"):
        assert admin.get(page).status_code == 200
    assert "Redis is away" in admin.get(HOSTS).content.decode()


def shown_states(admin: Client) -> tuple[str, tuple[str, str], str]:
    """The list of servers, the state on the first one's page, and the list of hosts."""
    listed = str(admin.get(SERVERS).context["cl"].result_list[0].pk)
    page = admin.get(f"{SERVERS}{listed}/change/").context["page_state"]
    return admin.get(SERVERS).content.decode(), page, admin.get(HOSTS).content.decode()


def test_a_server_whose_host_is_silent_is_not_called_running(admin: Client, server: Server) -> None:
    Server.objects.update(started=True)
    host = Host.objects.get()
    Host.objects.update(boot="b")
    revive(host)
    servers, page, hosts = shown_states(admin)
    assert page == ("success", "running")
    assert "error: silent" not in hosts
    redis_client().flushall()
    servers, page, hosts = shown_states(admin)
    assert page == ("danger", "its host is silent")
    assert "its host is silent" in servers
    assert "error: silent" in hosts
    assert "This host's worker says nothing any more" in admin.get(f"{HOSTS}{host.pk}/change/").content.decode()
    second = Host.objects.create(name="h2", public_address="192.0.2.2")
    ServerHost.objects.create(server=server, host=second)
    revive(second)
    assert shown_states(admin)[1] == ("warning", "running on 1 of 2 hosts")
    Host.objects.filter(pk=host.pk).update(enabled=False)
    assert shown_states(admin)[1] == ("success", "running")


def test_while_redis_is_away_nobody_says_that_a_server_runs(
    admin: Client, server: Server, settings: LazySettings
) -> None:
    Server.objects.update(started=True)
    settings.REDIS_URL = "unix:///nowhere/redis.sock"
    assert shown_states(admin)[1] == ("warning", "unknown: Redis is away")
