"""Who is connected now, and what was decided."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from core import clock
from servers.models import Host, Server
from tests.admin_site import messages, staff
from tests.conftest import Clock
from users.models import Organization, VpnUser
from wgpeers.lifecycle import liveness
from wgpeers.lifecycle.liveness import Ping
from wgpeers.models import Connection, Decision, State

CONNECTIONS, DECISIONS = "/admin/wgpeers/connection/", "/admin/wgpeers/decision/"


@pytest.fixture
def admin(client: Client, db: None, fixed_clock: Clock) -> Client:
    staff(client, superuser=True)
    return client


@pytest.fixture
def server(admin: Client) -> Server:
    Host.objects.create(name="gate-1", public_address="192.0.2.1")
    Organization.objects.create(name="Org")
    return Server.objects.create(name="office", network="10.8.0.0/24", wg_network="10.9.0.0/24", started=True)


def connection(server: Server, name: str, host_part: int, state: State = State.OPEN, **fields: Any) -> Connection:
    user, _ = VpnUser.objects.get_or_create(organization=Organization.objects.get(), name=name)
    common = {"user": user, "user_name": f"{name} (Org)", "server": server, "host": Host.objects.get(), "state": state}
    place = {
        "host_part": host_part,
        "address": f"10.9.0.{host_part}",
        "device_id": name,
        "device_name": f"{name}-laptop",
        "server_name": server.name,
        "host_name": "gate-1",
    }
    rest = {"wg_public_key": "k" * 44, "client_address": "203.0.113.9", "created": clock.moment(clock.now())}
    return Connection.objects.create(**common | place | rest | fields)


def names(admin: Client, url: str) -> list[str]:
    return sorted(str(row.user_name) for row in admin.get(url).context["cl"].result_list)


def test_the_list_shows_live_connections_and_history_on_request(admin: Client, server: Server) -> None:
    connection(server, "live", 2)
    connection(server, "pending", 3, State.PENDING)
    connection(server, "gone", 4, State.ENDED, ended=clock.moment(clock.now()), end_reason="silent")
    assert names(admin, CONNECTIONS) == ["live (Org)", "pending (Org)"]
    assert names(admin, f"{CONNECTIONS}?show=ended") == ["gone (Org)"]
    assert names(admin, f"{CONNECTIONS}?show=all") == ["gone (Org)", "live (Org)", "pending (Org)"]
    assert names(admin, f"{CONNECTIONS}?q=liv") == ["live (Org)"]
    assert names(admin, f"{CONNECTIONS}?user__id__exact={VpnUser.objects.get(name='live').pk}") == ["live (Org)"]
    assert "no ping in time" in admin.get(f"{CONNECTIONS}?show=ended").content.decode()


def test_the_list_says_from_where_since_when_and_the_last_ping(
    admin: Client, server: Server, fixed_clock: Clock
) -> None:
    row = connection(server, "alice", 2)
    liveness.start(row.public_id, clock.now() + server.ping_timeout)
    assert "not yet" in admin.get(CONNECTIONS).content.decode()
    fixed_clock.advance(300)
    liveness.write([Ping(row.public_id, clock.now() + server.ping_timeout, int(clock.now()), sure=False)])
    fixed_clock.advance(7)
    shown = admin.get(CONNECTIONS).content.decode()
    for words in ("alice (Org)", "office", "gate-1", "alice-laptop", "10.9.0.2", "203.0.113.9", "5 min ago", "7 s ago"):
        assert words in shown
    for page in (f"/admin/users/vpnuser/{row.user_id}/change/", f"{CONNECTIONS}{row.pk}/change/"):
        assert "7 s ago" in admin.get(page).content.decode()


def test_one_is_disconnected_by_its_button_and_several_by_the_action(admin: Client, server: Server) -> None:
    rows = [connection(server, name, host_part) for host_part, name in enumerate(("alice", "bob", "carol"), start=2)]
    assert "Disconnected" in messages(admin, f"{CONNECTIONS}{rows[0].pk}/do/disconnect/")
    assert "ended already" in messages(admin, f"{CONNECTIONS}{rows[0].pk}/do/disconnect/")
    assert names(admin, CONNECTIONS) == ["bob (Org)", "carol (Org)"]
    data = {"action": "disconnect_them", "_selected_action": [row.pk for row in rows[1:]]}
    assert "Disconnect 2 connections?" in admin.post(CONNECTIONS, data).content.decode()
    assert names(admin, CONNECTIONS) == ["bob (Org)", "carol (Org)"]
    assert messages(admin, CONNECTIONS, data | {"post": "yes"}) == "Disconnected 2 connections."
    assert names(admin, CONNECTIONS) == []
    assert set(Connection.objects.values_list("end_reason", flat=True)) == {"admin"}


def decision(name: str, ago: float, **fields: Any) -> Decision:
    when = clock.moment(clock.now()) - timedelta(seconds=ago)
    return Decision.objects.create(time=when, user_name=name, server_name="office", **fields)


@pytest.fixture
def decisions(admin: Client) -> None:
    said = [["envelope", "ok"], ["totp", "wrong"]]
    decision("in", 60, allowed=True, layer="connect", code="allowed")
    decision("out", 120, layer="totp", code="totp_wrong", layers=said, address="203.0.113.5")
    decision("end", 30, layer="liveness", code="silent")
    decision("old", 90000, layer="totp", code="totp_wrong")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["end", "in", "old", "out"]),
        ("?what=refused", ["old", "out"]),
        ("?what=allowed", ["in"]),
        ("?what=ended", ["end"]),
        ("?code=totp_wrong", ["old", "out"]),
        ("?layer=liveness", ["end"]),
        ("?q=203.0.113.5", ["out"]),
    ],
)
def test_decisions_are_filtered_and_searched(admin: Client, decisions: None, query: str, found: list[str]) -> None:
    assert names(admin, DECISIONS + query) == found


def test_a_decision_shows_what_each_layer_said_escaped(admin: Client, decisions: None) -> None:
    row = decision("evil", 1, layer="x", code="y", layers=[["<script>", "ok"]], device_name="<b>x</b>")
    shown = admin.get(f"{DECISIONS}{row.pk}/change/").content.decode()
    assert "&lt;script&gt;" in shown
    assert "<b>x</b>" not in shown


@pytest.mark.parametrize("what", ["connection", "decision"])
def test_what_happened_cannot_be_written_or_deleted(admin: Client, server: Server, decisions: None, what: str) -> None:
    row = connection(server, "alice", 2) if what == "connection" else Decision.objects.first()
    assert row is not None
    base = f"/admin/wgpeers/{what}/"
    assert admin.get(f"{base}add/").status_code == 403
    assert admin.post(f"{base}add/", {}).status_code == 403
    assert admin.post(f"{base}{row.pk}/change/", {"user_name": "x"}).status_code == 403
    assert admin.post(f"{base}{row.pk}/delete/", {"post": "yes"}).status_code == 403
    admin.post(base, {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"})
    before = type(row).objects.get(pk=row.pk)
    assert before.user_name == row.user_name


def test_the_dashboard_counts(admin: Client, server: Server, decisions: None) -> None:
    connection(server, "alice", 2)
    connection(server, "alice", 3)
    for name in ("bob", "carol"):
        VpnUser.objects.create(organization=VpnUser.objects.get(name="alice").organization, name=name)
    cards = {card["title"]: (card["value"], card["message"]) for card in admin.get("/admin/").context["cards"]}
    assert cards == {
        "Connected now": (2, "1 of 3 users"),
        "Hosts up": ("0 / 1", "1 silent"),
        "Servers running": ("0 / 1", "1 without a host that is up"),
        "Refused": (1, "in 24 hours; 1 allowed"),
    }
