"""An administrator sees and does what they were given the right to, and nothing changes by a GET."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin import site
from django.contrib.auth.models import User
from django.test import Client

from core import clock
from core.crypto import Secret
from core.models import AdminAuthenticator, AdminGuesses, AdminSession, Job
from servers.models import (
    ClientNetwork,
    ClientRegion,
    Host,
    JoinToken,
    OutsideLink,
    PortForward,
    Server,
    ServerHost,
    ServerLink,
)
from tests.admin_site import staff
from tests.conftest import Clock
from tests.factories import go_on_after_given_keys, unknown_provider
from users.factors.registry import FACTORS, load
from users.models import DeviceKey, Enrolment, Organization, Provider, UserPasskey, VpnUser, WrongAttempts
from wgpeers.models import Connection, Decision, State
from wgpeers.profiles import links

VIEW = [
    "users.view_vpnuser",
    "users.view_organization",
    "users.view_group",
    "users.view_factoroverride",
    "servers.view_server",
    "servers.view_serverfactor",
    "servers.view_serverhost",
    "servers.view_serverlink",
    "servers.view_outsidelink",
    "users.view_provider",
    "servers.view_host",
    "servers.view_route",
    "servers.view_splitdomain",
    "servers.view_portforward",
    "servers.view_clientnetwork",
    "wgpeers.view_connection",
    "wgpeers.view_decision",
    "core.view_job",
    "auth.view_user",
]
BUTTONS: list[tuple[str, str, dict[str, Any]]] = [
    ("users.vpnuser", "act_on_factor", {"factor": "pin", "action": "set", "pin": "w0mbat"}),
    ("users.vpnuser", "act_on_factor", {"factor": "pin", "action": "remove"}),
    ("users.vpnuser", "act_on_factor", {"factor": "totp", "action": "set_up"}),
    ("users.vpnuser", "act_on_factor", {"factor": "totp", "action": "remove"}),
    ("users.vpnuser", "act_on_factor", {"factor": "device", "action": "confirm", "key": 1, "reg_key": "A2B3-C4D5"}),
    ("users.vpnuser", "act_on_factor", {"factor": "device", "action": "rename", "key": 1, "name": "heron"}),
    ("users.vpnuser", "act_on_factor", {"factor": "device", "action": "revoke", "key": 1}),
    ("users.vpnuser", "act_on_factor", {"factor": "totp", "action": "new_codes"}),
    ("users.vpnuser", "act_on_factor", {"factor": "yubikey", "action": "add", "otp": "c" * 44}),
    ("users.vpnuser", "act_on_factor", {"factor": "yubikey", "action": "remove", "key": "c" * 12}),
    ("users.vpnuser", "act_on_factor", {"factor": "oidc", "action": "forget"}),
    ("users.vpnuser", "act_on_factor", {"factor": "saml", "action": "forget"}),
    ("users.vpnuser", "act_on_factor", {"factor": "passkey", "action": "remove", "passkey": 1}),
    ("users.vpnuser", "allow_device", {"device": "d"}),
    ("users.vpnuser", "lift_pause", {}),
    ("users.vpnuser", "create_link", {"kind": "normal"}),
    ("users.vpnuser", "revoke_link", {"link": 1}),
    ("users.vpnuser", "set_address", {"server": 1, "address": "10.9.0.50"}),
    ("servers.host", "make_token", {}),
    ("servers.host", "make_control_token", {}),
    ("servers.outsidelink", "make_file", {}),
    ("servers.server", "start", {}),
    ("servers.server", "stop", {}),
    ("servers.host", "drain", {}),
    ("servers.host", "take_clients", {}),
    ("wgpeers.connection", "disconnect", {}),
    ("core.job", "stop", {}),
    ("users.provider", "try_out", {}),
    ("auth.user", "lift_codes_pause", {}),
    ("auth.user", "reset_second_factor", {}),
    ("auth.user", "end_sessions", {}),
]
ACTIONS = [
    ("users.vpnuser", "disable_users"),
    ("users.vpnuser", "enable_users"),
    ("users.vpnuser", "delete_selected"),
    ("servers.server", "start_servers"),
    ("servers.server", "stop_servers"),
    ("servers.server", "delete_selected"),
    ("servers.host", "delete_selected"),
    ("servers.clientregion", "delete_selected"),
    ("servers.portforward", "delete_selected"),
    ("servers.serverlink", "delete_selected"),
    ("servers.outsidelink", "delete_selected"),
    ("servers.clientnetwork", "delete_selected"),
    ("wgpeers.connection", "disconnect_them"),
]


@pytest.fixture(autouse=True)
def world(db: None, fixed_clock: Clock) -> None:
    """One row of everything, each with the primary key 1."""
    organization = Organization.objects.create(pk=1, name="Org")
    user = VpnUser.objects.create(pk=1, organization=organization, name="alice")
    Enrolment.objects.create(user=user, kind="pin", hash="a-pin-hash")
    UserPasskey.objects.create(pk=1, user=user, name="laptop", created=clock.moment(0))
    DeviceKey.objects.create(pk=1, user=user, fingerprint="f", reg_key="A2B3-C4D5", created=clock.moment(0))
    WrongAttempts.objects.create(user=user, count=10, last=clock.moment(0), paused_until=clock.moment(2**32))
    host = Host.objects.create(pk=1, name="gate-7", public_address="192.0.2.1")
    server = Server.objects.create(pk=1, name="office", network="10.8.0.0/24", wg_network="10.9.0.0/24", started=True)
    server.organizations.add(organization)
    ServerHost.objects.create(server=server, host=host)
    other = Server.objects.create(pk=2, name="lab", network="10.18.0.0/24", wg_network="10.19.0.0/24", port=51821)
    ServerLink.objects.create(pk=1, first=server, second=other)
    OutsideLink.objects.create(pk=1, server=server, name="Acme", ours="10.9.0.0/24", theirs="10.60.0.0/16")
    ClientRegion.objects.create(pk=1, network="203.0.113.0/24", region="eu")
    PortForward.objects.create(pk=1, server=server, user=user, port=8080)
    ClientNetwork.objects.create(pk=1, server=server, user=user, network="192.168.7.0/24")
    now = clock.moment(clock.now())
    Connection.objects.create(
        pk=1, user=user, user_name="alice (Org)", server=server, host=host, state=State.OPEN, host_part=2,
        address="10.9.0.2", device_id="d", wg_public_key="k" * 44, created=now,
    )  # fmt: skip
    Decision.objects.create(
        pk=1, time=now, user_name="alice (Org)", server_name="office", layer="connect", code="allowed"
    )
    links.create(user, clock.now())
    unknown_provider()
    bob = User.objects.create_user("bob", pk=1, is_staff=True)
    go_on_after_given_keys(User, Host)
    AdminAuthenticator.objects.create(administrator=bob, secret=Secret.of("JBSWY3DP"), counter=0, created=now)
    AdminGuesses.objects.create(administrator=bob, count=10, last=now, paused_until=clock.moment(2**32))
    AdminSession.objects.create(session_key="k", administrator=bob, public_id="p", expire_date=clock.moment(2**32))
    Job.objects.create(pk=1, kind="users.set_enabled", title="Disable 1 user", created=now)


def snapshot() -> list[Any]:
    """Everything that a button could change."""
    user = VpnUser.objects.get()
    return [
        (
            user.enabled,
            user.email,
            WrongAttempts.objects.count(),
            [(row.kind, row.hash, row.secret.stored) for row in user.enrolments.all()],
        ),
        list(Server.objects.values_list("started", "name")),
        list(Host.objects.values_list("draining", flat=True)),
        (ClientRegion.objects.count(), ServerLink.objects.count()),
        list(OutsideLink.objects.values_list("link_id", "keys_made")),
        list(Connection.objects.values_list("state", flat=True)),
        list(user.passkeys.values_list("name", flat=True)),
        list(user.device_keys.values_list("name", "confirmed", "revoked")),
        list(user.links.values_list("revoked", flat=True)),
        list(user.addresses.values_list("host_part", flat=True)),
        list(Job.objects.values_list("state", flat=True)),
        list(JoinToken.objects.values_list("hash", flat=True)),
        list(Provider.objects.values_list("settings", "name")),
        (AdminAuthenticator.objects.count(), AdminGuesses.objects.count()),
        list(AdminSession.objects.filter(administrator=1).values_list("public_id", flat=True)),
        (Host.objects.count(), PortForward.objects.count(), ClientNetwork.objects.count()),
    ]


def url(model: str, rest: str = "") -> str:
    return f"/admin/{model.replace('.', '/')}/{rest}"


def test_every_button_of_every_page_is_in_this_test() -> None:
    found = {
        (page.opts.label_lower, name)
        for page in site._registry.values()
        for name in dir(type(page))
        if hasattr(getattr(type(page), name, None), "post_permission")
    }
    assert found == {(model, name) for model, name, _ in BUTTONS}
    of_factors = {(kind, action) for kind in FACTORS if (panel := load(kind).panel) for action in panel.actions}
    assert of_factors == {(data["factor"], data["action"]) for _, _, data in BUTTONS if "factor" in data}


@pytest.mark.parametrize(("model", "name", "data"), BUTTONS)
def test_only_who_may_change_can_press(client: Client, model: str, name: str, data: dict[str, Any]) -> None:
    before = snapshot()
    address = url(model, f"1/do/{name}/")
    assert client.post(address, data).status_code == 302  # to the login page
    staff(client, *VIEW)
    assert client.post(address, data).status_code == 403
    assert snapshot() == before


@pytest.mark.parametrize(("model", "name", "data"), BUTTONS)
def test_a_get_changes_nothing(client: Client, model: str, name: str, data: dict[str, Any]) -> None:
    staff(client, superuser=True)
    before = snapshot()
    response = client.get(url(model, f"1/do/{name}/"), data)
    assert (response.status_code, response.headers["Location"]) == (302, url(model, "1/change/"))
    assert snapshot() == before


@pytest.mark.parametrize(("model", "name", "data"), BUTTONS)
def test_a_post_from_another_site_changes_nothing(model: str, name: str, data: dict[str, Any]) -> None:
    careful = Client(enforce_csrf_checks=True)
    staff(careful, superuser=True)
    before = snapshot()
    assert careful.post(url(model, f"1/do/{name}/"), data).status_code == 403
    assert snapshot() == before


@pytest.mark.parametrize("name", ["delete_model", "get_queryset", "nothing", "save_model"])
def test_nothing_else_of_a_page_can_be_called(client: Client, name: str) -> None:
    staff(client, superuser=True)
    assert client.post(url("users.vpnuser", f"1/do/{name}/")).status_code == 404
    assert client.post(url("users.vpnuser", "999/do/act_on_factor/")).status_code == 404


@pytest.mark.parametrize(("model", "name"), ACTIONS)
def test_who_only_views_has_no_actions(client: Client, model: str, name: str) -> None:
    staff(client, *VIEW)
    before = snapshot()
    client.post(url(model), {"action": name, "_selected_action": ["1"], "post": "yes"})
    assert snapshot() == before


def test_who_only_views_sees_neither_links_nor_buttons(client: Client) -> None:
    staff(client, *VIEW)
    link = VpnUser.objects.get().links.get()
    user = client.get(url("users.vpnuser", "1/change/")).content.decode()
    assert "alice" in user
    for hidden in (link.short_id.reveal(), link.key_id.reveal(), "Profile link", "/do/", "a-pin-hash"):
        assert hidden not in user
    for page in (url("servers.server"), url("servers.server", "1/change/"), url("wgpeers.connection")):
        assert "/do/" not in client.get(page).content.decode()
    for page in (
        *(url("users.vpnuser", f"{rest}/") for rest in ("import", "export", "add")),
        url("servers.server", "1/delete/"),
    ):
        assert client.get(page).status_code == 403
    assert client.post(url("users.vpnuser", "1/change/"), {"name": "mallory"}).status_code == 403


def test_a_stranger_on_the_staff_sees_nothing(client: Client) -> None:
    staff(client)
    for model in (
        "users.vpnuser",
        "users.organization",
        "users.group",
        "users.provider",
        "servers.server",
        "servers.host",
        "servers.serverlink",
        "servers.outsidelink",
        "servers.portforward",
        "servers.clientnetwork",
    ):
        for rest in ("", "add/", "1/change/", "1/delete/"):
            assert client.get(url(model, rest)).status_code == 403, (model, rest)
    for model in ("wgpeers.connection", "wgpeers.decision"):
        assert client.get(url(model)).status_code == 403
    assert client.get(url("users.vpnuser", "export/")).status_code == 403
    page = client.get("/admin/")
    assert page.context["cards"] == []
    for hidden in ("alice", "office", "gate-7", "Decisions"):
        assert hidden not in page.content.decode()


def test_nobody_gets_in_without_logging_in() -> None:
    for page in ("/admin/", url("users.vpnuser"), url("users.vpnuser", "1/change/"), url("wgpeers.connection")):
        response = Client().get(page)
        assert response.status_code == 302
        assert "/admin/login/" in response.headers["Location"]


def test_deleting_an_organization_needs_the_right_to_delete_its_users(client: Client) -> None:
    staff(client, *VIEW, "users.delete_organization")
    assert client.post(url("users.organization", "1/delete/"), {"post": "yes"}).status_code == 403
    assert Organization.objects.exists()
