"""What must not be done by whoever finds an open browser asks for the second factor again after 15 minutes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.admin import site
from django.contrib.admin.utils import flatten
from django.contrib.auth.models import Group as Role
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from core.crypto import Secret
from core.models import AdminAuthenticator, RecoveryCode
from servers.models import Host, JoinToken, OutsideLink, Server, ServerFactor
from tests.admin_site import errors, send
from tests.conftest import Clock
from tests.factories import go_on_after_given_keys
from users.models import FactorOverride, Organization, Provider, VpnUser
from wgpeers.models import ProfileLink

from .administrators import (
    ACCOUNT,
    AUTHENTICATOR,
    CONFIRM,
    administrator,
    code,
    leads_to,
    recovery_codes,
    signed_in,
    wrong,
)

pytestmark = pytest.mark.django_db
FIFTEEN = 15 * 60
# Every button of every page: whether it asks. A new one is to be put here, after a thought.
SENSITIVE = {
    ("users.vpnuser", "act_on_factor"),
    ("users.vpnuser", "allow_device"),
    ("users.vpnuser", "create_link"),
    ("servers.host", "make_token"),
    ("servers.host", "make_control_token"),
    ("servers.outsidelink", "make_file"),
    ("users.provider", "try_out"),
    ("auth.user", "lift_codes_pause"),
    ("auth.user", "reset_second_factor"),
    ("auth.user", "end_sessions"),
}
HARMLESS = {
    ("users.vpnuser", "lift_pause"),
    ("users.vpnuser", "revoke_link"),
    ("users.vpnuser", "set_address"),
    ("servers.server", "start"),
    ("servers.server", "stop"),
    ("servers.host", "drain"),
    ("servers.host", "take_clients"),
    ("wgpeers.connection", "disconnect"),
    ("core.job", "stop"),
}
# Pages that ask before anything but their list.
PAGES = ("auth.user", "auth.group", "users.provider")
OWN = ("authenticator/", "authenticator/remove/", "recovery-codes/", "passkeys/add/", "passkeys/remove/")


@pytest.fixture
def root(settings: Settings, fixed_clock: Clock) -> User:
    settings.ADMIN_SECOND_FACTOR = "required"
    Organization.objects.create(pk=1, name="Org")
    VpnUser.objects.create(pk=1, organization_id=1, name="alice")
    Host.objects.create(pk=1, name="gate-7", public_address="192.0.2.1")
    Role.objects.create(pk=1, name="helpdesk")
    server = Server.objects.create(pk=1, name="office", network="10.8.0.0/24", wg_network="10.9.0.0/24")
    OutsideLink.objects.create(pk=1, server=server, name="Acme", ours="10.9.0.0/24", theirs="10.60.0.0/16")
    secrets = Secret.of(json.dumps({"shared_secret": "x" * 32}))
    Provider.objects.create(pk=1, kind="radius", name="ours", settings={"servers": "192.0.2.9"}, secrets=secrets)
    go_on_after_given_keys(Organization, VpnUser, Host, Role, Server, OutsideLink, Provider)
    return administrator(app=True)


@pytest.fixture
def browser(root: User, fixed_clock: Clock) -> Client:
    """Signed in 15 minutes ago."""
    client = signed_in()
    fixed_clock.advance(FIFTEEN)
    return client


def snapshot() -> list[Any]:
    return [
        list(User.objects.order_by("pk").values_list("pk", "username", "is_superuser", "password")),
        list(Role.objects.values_list("name")),
        list(Provider.objects.values_list("name", "settings", "secrets")),
        ProfileLink.objects.count(),
        JoinToken.objects.count(),
        OutsideLink.objects.get().works,
        VpnUser.objects.get().enrolments.count(),
        list(AdminAuthenticator.objects.values_list("secret")),
        RecoveryCode.objects.count(),
    ]


def url(model: str, rest: str = "") -> str:
    return f"/admin/{model.replace('.', '/')}/{rest}"


def test_every_button_is_named_here_and_does_what_is_said_of_it() -> None:
    found = {
        ((page.opts.label_lower, name), bool(getattr(getattr(type(page), name), "sensitive")))  # noqa: B009
        for page in site._registry.values()
        for name in dir(type(page))
        if hasattr(getattr(type(page), name, None), "post_permission")
    }
    assert {each for each, asks in found if asks} == SENSITIVE
    assert {each for each, asks in found if not asks} == HARMLESS


@pytest.mark.parametrize(("model", "name"), sorted(SENSITIVE))
def test_a_sensitive_button_asks_and_does_nothing(browser: Client, model: str, name: str) -> None:
    pk = User.objects.get().pk if model == "auth.user" else 1
    before = snapshot()
    address = url(model, f"{pk}/do/{name}/")
    answer = browser.post(address, {"factor": "totp", "action": "set_up"}, follow=True)
    path, _, query = answer.redirect_chain[0][0].partition("?")
    assert path == CONFIRM
    assert "Not done yet" in answer.content.decode()
    assert snapshot() == before
    assert leads_to(browser.post(f"{CONFIRM}?{query}", {"code": code()})) in (address, url(model, f"{pk}/change/"))


@pytest.mark.parametrize("model", PAGES)
def test_administrators_and_roles_ask_before_anything_but_their_list(browser: Client, model: str) -> None:
    before, [page] = snapshot(), [each for each in site._registry.values() if each.opts.label_lower == model]
    paths = [str(pattern.pattern).replace("<path:object_id>", "1") for pattern in page.get_urls()]
    paths = [path.replace("<id>", "1").replace("<int:object_id>", "1").replace("<slug:name>", "x") for path in paths]
    assert len(paths) >= 6
    for path in paths:
        data = {"action": "delete_selected", "_selected_action": ["1"], "post": "yes", "name": "other"}
        assert leads_to(browser.post(url(model, path), data)) == CONFIRM, path
        if path not in ("", "1/history/"):
            assert leads_to(browser.get(url(model, path))) == CONFIRM, path
    assert browser.get(url(model)).status_code == 200
    assert snapshot() == before


@pytest.mark.parametrize("path", OWN)
def test_ones_own_factors_ask_too(browser: Client, path: str) -> None:
    before = snapshot()
    assert leads_to(browser.post(f"{ACCOUNT}{path}", {"passkey": "1"})) == CONFIRM
    assert snapshot() == before
    assert browser.post(f"{ACCOUNT}passkeys/creation/").status_code == 403


def test_links_are_hidden_until_it_is_shown_again(browser: Client, fixed_clock: Clock) -> None:
    page = url("users.vpnuser", "1/change/")
    assert "Show links" in browser.get(page).content.decode()
    assert leads_to(browser.post(f"{CONFIRM}?next={page}", {"code": code()})) == page
    assert browser.post(url("users.vpnuser", "1/do/create_link/")).status_code == 302
    link = ProfileLink.objects.get().short_id.reveal()
    assert link in browser.get(page).content.decode()
    fixed_clock.advance(FIFTEEN)
    assert link not in browser.get(page).content.decode()


def test_an_exception_from_second_factors_asks_and_keeps_what_was_filled_in(browser: Client) -> None:
    page, rows = url("users.vpnuser", "1/change/"), [{"kind": "totp", "state": "exempt", "reason": "lost phone"}]
    answer = send(browser, page, _inline={"factor_overrides": rows})
    assert "asks for your second factor again" in str(errors(answer))
    assert "lost phone" in answer.content.decode()
    assert not FactorOverride.objects.exists()
    assert errors(send(browser, page, email="a@example.com")) == {}  # the rest of the page does not ask
    browser.post(CONFIRM, {"code": code()})
    assert errors(send(browser, page, _inline={"factor_overrides": rows})) == {}
    assert FactorOverride.objects.exists()


# What lets people pass with less: (page, what is changed).
LESS: list[tuple[str, dict[str, Any]]] = [
    ("servers.server", {"factors-0-mode": "required"}),
    ("servers.server", {"reconnect_grace": 999}),
    ("servers.server", {"factor_token_ttl": 3600}),
    ("servers.server", {"ask_again_at": "03:00"}),
    ("servers.server", {"time_zone": "Europe/Berlin"}),
    ("servers.server", {"ask_again_elsewhere": "on"}),
    ("servers.server", {"trusted_networks": "198.51.100.0/24"}),
    ("users.organization", {"own_factors": None}),
]


@pytest.mark.parametrize(("model", "change"), LESS, ids=str)
def test_lowering_what_is_asked_of_people_asks_and_keeps_what_was_filled_in(
    browser: Client, model: str, change: dict[str, Any]
) -> None:
    page = url(model, "1/change/")
    answer = send(browser, page, name="Renamed", **change)
    assert "asks for your second factor again" in str(errors(answer))
    assert "Renamed" in answer.content.decode()
    assert not ServerFactor.objects.exists()
    assert errors(send(browser, page, name="Renamed")) == {}  # the rest of the page does not ask
    browser.post(CONFIRM, {"code": code()})
    assert errors(send(browser, page, **change)) == {}


def test_every_column_by_which_a_server_asks_for_factors_is_among_them() -> None:
    """Those that stand together on its page, under *Asked again*."""
    page = site._registry[Server]
    [(_, options)] = [each for each in page.fieldsets or () if each[0] == "Asked again"]
    columns = flatten(options["fields"])
    assert set(columns) == {name for model, change in LESS if model == "servers.server" for name in change} - {
        "factors-0-mode"
    }


def test_a_new_host_is_saved_and_its_token_waits(browser: Client) -> None:
    answer = send(browser, url("servers.host", "add/"), name="gate-8", public_address="192.0.2.8")
    assert leads_to(answer) == CONFIRM
    assert Host.objects.filter(name="gate-8").exists()
    assert not JoinToken.objects.exists()


def test_harmless_buttons_do_not_ask(browser: Client) -> None:
    assert leads_to(browser.post(url("servers.host", "1/do/drain/"))) == url("servers.host", "1/change/")
    assert Host.objects.get().draining


@pytest.mark.parametrize(("seconds", "asked"), [(FIFTEEN - 1, False), (FIFTEEN, True), (-1, True)])
def test_it_is_asked_after_15_minutes_and_when_the_clock_was_set_back(
    root: User, fixed_clock: Clock, seconds: float, asked: bool
) -> None:
    client = signed_in()
    fixed_clock.step(seconds)
    assert (client.get(url("auth.group", "1/change/")).status_code == 302) is asked


def test_a_wrong_code_does_not_make_it_fresh_and_a_recovery_code_does(browser: Client, root: User) -> None:
    page = url("auth.group", "1/change/")
    assert browser.post(f"{CONFIRM}?next={page}", {"code": wrong()}).status_code == 200
    assert leads_to(browser.get(page)) == CONFIRM
    codes = recovery_codes(root)
    assert leads_to(browser.post(f"{CONFIRM}?next={page}", {"code": codes[0]})) == page
    assert browser.get(page).status_code == 200


def test_what_is_not_asked_again_works_all_day(browser: Client, fixed_clock: Clock) -> None:
    fixed_clock.advance(8 * 3600)
    for page in ("/admin/", url("users.vpnuser"), url("servers.host", "1/change/"), ACCOUNT):
        assert browser.get(page).status_code == 200


def test_who_has_none_where_nobody_has_to_is_not_asked(settings: Settings, client: Client, fixed_clock: Clock) -> None:
    settings.ADMIN_SECOND_FACTOR = "off"
    client.force_login(administrator())
    assert client.get(url("auth.group", "add/")).status_code == 200
    assert client.get(CONFIRM).status_code == 302


def test_setting_up_anew_needs_a_fresh_factor_and_voids_the_old_one(browser: Client, root: User) -> None:
    browser.post(CONFIRM, {"code": code()})
    old = AdminAuthenticator.objects.get().secret.reveal()
    assert "totp-secret" in browser.post(AUTHENTICATOR).content.decode()
    assert AdminAuthenticator.objects.get().secret.reveal() == old  # until the new app has shown a code


def test_the_only_factor_cannot_be_removed_where_one_is_required(browser: Client, settings: Settings) -> None:
    browser.post(CONFIRM, {"code": code()})
    answer = browser.post(f"{AUTHENTICATOR}remove/", follow=True)
    assert "your only second factor" in answer.content.decode()
    assert AdminAuthenticator.objects.exists()
    settings.ADMIN_SECOND_FACTOR = "off"
    assert browser.post(f"{AUTHENTICATOR}remove/").status_code == 302
    assert not AdminAuthenticator.objects.exists()
