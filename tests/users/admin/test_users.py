"""A user's page: factors, profile links, addresses, and users in and out by CSV."""

from __future__ import annotations

import io
import re
import tarfile
from typing import Any

import pyotp
import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.hashers import check_password
from django.test import Client

from core.redis_store import redis_client
from servers import addresses
from servers.models import Server
from tests.admin_site import errors, messages, queued, send, staff
from tests.factories import Company
from users.models import Device, Group, Organization, VpnUser
from wgpeers.models import ProfileLink

USERS = "/admin/users/vpnuser/"
# The button of every factor's panel, and what it sends to set a PIN.
FACTOR, PIN = "act_on_factor", {"factor": "pin", "action": "set"}


@pytest.fixture
def admin(client: Client, transactional_db: None) -> Client:
    staff(client, superuser=True)
    return client


@pytest.fixture
def user(admin: Client) -> VpnUser:
    return VpnUser.objects.create(organization=Organization.objects.create(name="Org"), name="alice")


def page_of(user: VpnUser) -> str:
    return f"{USERS}{user.pk}/change/"


def button(user: VpnUser, name: str) -> str:
    return f"{USERS}{user.pk}/do/{name}/"


def everything_shown(admin: Client, user: VpnUser) -> str:
    """The user's page, list and history, and what the log of the site says."""
    pages = [page_of(user), USERS, f"{USERS}{user.pk}/history/", "/admin/"]
    return "".join(admin.get(page).content.decode() for page in pages) + repr(list(LogEntry.objects.values()))


def test_a_new_user_shows_that_the_key_is_being_made(admin: Client, user: VpnUser) -> None:
    assert "key being made" in admin.get(page_of(user)).content.decode()
    VpnUser.objects.filter(pk=user.pk).update(certificate="made")
    assert "key being made" not in admin.get(page_of(user)).content.decode()


def test_creating_a_user_queues_the_key_and_does_not_make_it(admin: Client) -> None:
    organization = Organization.objects.create(name="Org")
    assert errors(send(admin, f"{USERS}add/", organization=organization.pk, name="bob")) == {}
    assert VpnUser.objects.get().certificate == ""
    assert "users.make_user_key" in queued("keys")


def test_saving_a_form_does_not_undo_what_a_worker_wrote_meanwhile(admin: Client, user: VpnUser) -> None:
    """The key is made between the moment the form's row is read and the moment it is saved."""
    from users.admin import pages as users_admin

    read = users_admin.VpnUserPage.get_object

    def read_then_key_is_made(self: Any, request: Any, object_id: str, *rest: Any) -> Any:
        found = read(self, request, object_id, *rest)
        VpnUser.objects.filter(pk=user.pk).update(certificate="made")
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(users_admin.VpnUserPage, "get_object", read_then_key_is_made)
        assert errors(send(admin, page_of(user), email="alice@example.com")) == {}
    user.refresh_from_db()
    assert (user.certificate, user.email) == ("made", "alice@example.com")


def test_a_pin_is_set_replaced_and_removed_and_never_shown(admin: Client, user: VpnUser) -> None:
    assert "Set a PIN" in messages(admin, button(user, FACTOR), PIN | {"pin": "s3cret-pin"})
    stored = user.enrolments.get().hash
    assert check_password("s3cret-pin", stored)
    shown = everything_shown(admin, user)
    assert "s3cret-pin" not in shown
    assert stored not in shown
    messages(admin, button(user, FACTOR), PIN | {"pin": "an0ther-pin"})
    assert check_password("an0ther-pin", user.enrolments.get().hash)
    messages(admin, button(user, FACTOR), PIN | {"action": "remove"})
    assert not user.enrolments.exists()


@pytest.mark.parametrize("pin", ["", "12345", "x" * 65, "w0m bat", "w0m\nbat", "19811204"])
def test_a_bad_pin_is_refused_in_words(admin: Client, user: VpnUser, pin: str) -> None:
    assert "The PIN was not set" in messages(admin, button(user, FACTOR), PIN | {"pin": pin})
    assert not user.enrolments.exists()


def test_totp_is_shown_once(admin: Client, user: VpnUser) -> None:
    response = admin.post(button(user, FACTOR), {"factor": "totp", "action": "set_up"})
    secret = user.enrolments.get().secret.reveal()
    assert secret in response.content.decode()
    assert "data:image/svg+xml" in response.content.decode()
    assert "no-store" in response["Cache-Control"]
    assert pyotp.TOTP(secret).now()
    assert secret not in everything_shown(admin, user)
    admin.post(button(user, FACTOR), {"factor": "totp", "action": "remove"})
    assert not user.enrolments.exists()


@pytest.mark.parametrize(
    "sent",
    [{}, {"factor": "pin"}, {"factor": "palm", "action": "set"}, {"factor": "pin", "action": "set_up"}],
)
def test_there_is_no_button_but_those_of_the_panels(admin: Client, user: VpnUser, sent: dict[str, str]) -> None:
    assert admin.post(button(user, FACTOR), sent).status_code == 404
    assert not user.enrolments.exists()


def test_no_secret_of_a_user_is_on_any_page(admin: Client, user: VpnUser) -> None:
    shown = everything_shown(admin, user) + admin.get(f"{USERS}{user.pk}/delete/").content.decode()
    for secret in (user.sync_token, user.sync_secret):
        assert secret.reveal() not in shown
        assert secret.stored not in shown


def test_a_link_is_made_found_opened_and_revoked(admin: Client, company: Company) -> None:
    user, _ = company.hire("alice")
    messages(admin, button(user, "create_link"), {"kind": "normal"})
    shown = admin.get(page_of(user)).content.decode()
    found = re.search(r"https://192\.0\.2\.10/k/([A-Za-z0-9]+)", shown)
    assert found
    assert f"pritunl://192.0.2.10/ku/{found[1]}" in shown
    assert "data:image/svg+xml" in shown
    visitor = Client()
    assert "Import into your client" in visitor.post(f"/k/{found[1]}", follow=True).content.decode()
    download = re.search(r'href="(/key/[A-Za-z0-9]+\.tar)"', shown)
    assert download
    with tarfile.open(fileobj=io.BytesIO(visitor.get(download[1]).content)) as archive:
        assert len(archive.getnames()) == 1
    one = re.search(r'href="(/key/[A-Za-z0-9]+/[A-Za-z0-9]+\.key)"', shown)
    assert one
    assert visitor.get(one[1]).status_code == 200
    messages(admin, button(user, "revoke_link"), {"link": ProfileLink.objects.get().pk})
    assert visitor.get(f"/k/{found[1]}").status_code == 404
    assert visitor.get(download[1]).status_code == 404
    assert found[1] not in everything_shown(admin, user)


def test_a_one_time_link_is_gone_after_one_download(admin: Client, company: Company) -> None:
    user, _ = company.hire("alice")
    messages(admin, button(user, "create_link"), {"kind": "one_time"})
    shown = admin.get(page_of(user)).content.decode()
    download = re.search(r'href="(/key/[A-Za-z0-9]+\.zip)"', shown)
    assert download
    assert [Client().get(download[1]).status_code for _ in range(2)] == [200, 404]
    assert download[1] not in admin.get(page_of(user)).content.decode()


def test_the_history_of_a_user_has_no_link_in_it(admin: Client, user: VpnUser) -> None:
    messages(admin, button(user, "create_link"))
    link = ProfileLink.objects.get()
    said = repr(list(LogEntry.objects.values()))
    assert "profile link" in said
    assert link.short_id.reveal() not in said
    assert link.key_id.reveal() not in said


def test_nobody_gets_a_link_for_a_disabled_user_or_revokes_anothers(admin: Client, user: VpnUser) -> None:
    other = VpnUser.objects.create(organization=user.organization, name="bob")
    messages(admin, button(user, "create_link"))
    assert "no such link" in messages(admin, button(other, "revoke_link"), {"link": ProfileLink.objects.get().pk})
    assert ProfileLink.objects.get().revoked is None
    for wrong in ("", "x", "²", "99999"):
        assert "no such link" in messages(admin, button(user, "revoke_link"), {"link": wrong})
    VpnUser.objects.filter(pk=user.pk).update(enabled=False)
    assert "disabled" in messages(admin, button(user, "create_link"))
    assert ProfileLink.objects.count() == 1


def test_a_static_address_is_changed_or_refused_with_a_reason(admin: Client, user: VpnUser) -> None:
    server = Server.objects.create(name="office", network="10.8.0.0/24", wg_network="10.9.0.0/24")
    server.organizations.add(user.organization)
    bob = VpnUser.objects.create(organization=user.organization, name="bob")
    assert addresses.static_address(server, bob).address == "10.9.0.2"
    assert "at the first connect" in admin.get(page_of(user)).content.decode()
    refused = {
        "10.9.0.2": "belongs to bob",
        "10.9.0.1": "gateway",
        "10.9.0.255": "first or last",
        "10.10.0.4": "is not in 10.9.0.0/24",
        "nine": "not an IPv4 address",
        "": "not an IPv4 address",
    }
    for address, words in refused.items():
        said = messages(admin, button(user, "set_address"), {"server": server.pk, "address": address})
        assert words in said
    assert "no such server" in messages(admin, button(user, "set_address"), {"server": "x", "address": "10.9.0.9"})
    assert not user.addresses.exists()
    redis_client().flushall()
    assert "10.9.0.77" in messages(admin, button(user, "set_address"), {"server": server.pk, "address": "10.9.0.77"})
    assert "wgpeers.enforce" in queued()
    assert addresses.static_address(server, user).address == "10.9.0.77"


def test_devices_are_shown(admin: Client, user: VpnUser) -> None:
    when = user.created
    Device.objects.create(user=user, device_id="d", name="night-owl", platform="mac", first_seen=when, last_seen=when)
    assert "night-owl" in admin.get(page_of(user)).content.decode()


def test_changes_of_rights_are_enforced_after_commit(admin: Client, user: VpnUser) -> None:
    group = Group.objects.create(name="engineering")
    cases: list[dict[str, Any]] = [{"groups": [group.pk]}, {"enabled": None}]
    for changes in cases:
        redis_client().flushall()
        assert errors(send(admin, page_of(user), **changes)) == {}
        assert "wgpeers.enforce" in queued()
    redis_client().flushall()
    admin.post(f"{USERS}{user.pk}/delete/", {"post": "yes"})
    assert not VpnUser.objects.exists()
    assert "wgpeers.enforce" in queued()


def test_users_are_disabled_and_enabled_from_the_list(admin: Client, user: VpnUser) -> None:
    for action, enabled in (("disable_users", False), ("enable_users", True)):
        selected = {"action": action, "_selected_action": [user.pk]}
        assert "able 1 user?" in admin.post(USERS, selected).content.decode()
        user.refresh_from_db()
        assert user.enabled is not enabled
        assert "abled 1 user." in messages(admin, USERS, selected | {"post": "yes"})
        user.refresh_from_db()
        assert user.enabled is enabled
