"""Sessions are listed and ended; a new password, and a factor that is reset, end the others."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.backends.base import UpdateError
from django.core.management import CommandError, call_command
from django.test import Client
from pytest_django import Settings

from core import clock
from core.models import AdminAuthenticator, AdminGuesses, AdminSession, RecoveryCode
from tests.conftest import Clock

from .administrators import (
    ACCOUNT,
    AUTHENTICATOR,
    PASSWORD,
    administrator,
    code,
    history,
    is_in,
    leads_to,
    recovery_codes,
    shown_secret,
    signed_in,
    with_password,
)

pytestmark = pytest.mark.django_db
END = f"{ACCOUNT}sessions/end/"
NEW = "one that nobody else has seen"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Version/18.5 Safari/604.1"


@pytest.fixture
def root(settings: Settings, fixed_clock: Clock) -> User:
    settings.ADMIN_SECOND_FACTOR = "required"
    return administrator(app=True)


def ids(client: Client) -> list[str]:
    return re.findall(r'name="id" value="(\w+)"', client.get(ACCOUNT).content.decode())


def test_ones_own_sessions_say_from_where_when_and_by_what(root: User, fixed_clock: Clock) -> None:
    signed_in(address="2001:db8::7", HTTP_USER_AGENT=IPHONE)
    fixed_clock.advance(7200)
    client = signed_in(HTTP_USER_AGENT=FIREFOX)
    page = client.get(ACCOUNT).content.decode()
    for words in ("Firefox on Linux", "192.0.2.7", "Safari on iPhone", "2001:db8::7", "2 h ago", "this one"):
        assert words in page, words
    assert not [key for key in AdminSession.objects.values_list("session_key", flat=True) if key in page]


def test_that_a_session_is_in_use_is_written_down_now_and_then(root: User, fixed_clock: Clock) -> None:
    client = signed_in()
    began = AdminSession.objects.get().seen
    fixed_clock.advance(60)
    client.get("/admin/")
    assert AdminSession.objects.get().seen == began
    fixed_clock.advance(240)
    client.get("/admin/")
    assert AdminSession.objects.get().seen == clock.moment(clock.now())


def test_one_is_ended_and_all_others_are(root: User) -> None:
    first, second, third = signed_in(), signed_in(), signed_in()
    one, _ = ids(third)
    assert third.post(END, {"id": one}).status_code == 302
    assert sorted(map(is_in, (first, second))) == [False, True]
    assert third.post(END).status_code == 302
    assert list(map(is_in, (first, second, third))) == [False, False, True]
    assert "Ended 1 other sessions of theirs." in history(root)


def test_ones_own_session_ends_as_by_signing_out(root: User) -> None:
    client = signed_in()
    own = AdminSession.objects.get().public_id
    assert leads_to(client.post(END, {"id": own})) == "/admin/login/"
    assert not is_in(client)


@pytest.mark.parametrize("public_id", ["0" * 24, "x" * 1000])
def test_of_others_none_is_ended(root: User, public_id: str) -> None:
    administrator("carol", app=True)
    carol, mine = signed_in("carol"), signed_in()
    theirs = AdminSession.objects.get(administrator__username="carol").public_id
    for each in (public_id, theirs):
        assert mine.post(END, {"id": each}).status_code == 302
    assert is_in(carol)


def test_an_ended_session_does_not_come_back_by_a_request_that_is_under_way(root: User) -> None:
    client = signed_in()
    session = client.session
    assert session.get("_auth_user_id")  # read before it ends
    AdminSession.objects.all().delete()
    session["late"] = True
    with pytest.raises(UpdateError):
        session.save()
    assert not is_in(client)


def test_a_new_password_of_ones_own_ends_the_others(root: User) -> None:
    here, there = signed_in(), signed_in()
    fields = {"old_password": PASSWORD, "new_password1": NEW, "new_password2": NEW}
    assert here.post("/admin/password_change/", fields).status_code == 302
    assert is_in(here)
    assert not is_in(there)
    assert AdminSession.objects.count() == 1


def test_a_password_that_another_set_ends_all_of_theirs(root: User) -> None:
    carol = administrator("carol", app=True)
    theirs, mine = signed_in("carol"), signed_in()
    fields = {"usable_password": "true", "password1": NEW, "password2": NEW}
    assert mine.post(f"/admin/auth/user/{carol.pk}/password/", fields).status_code == 302
    assert not AdminSession.objects.filter(administrator=carol).exists()
    assert not is_in(theirs)
    assert is_in(mine)


def test_setting_up_anew_ends_the_others(root: User, fixed_clock: Clock) -> None:
    here, there = signed_in(), signed_in()
    secret = shown_secret(here.post(AUTHENTICATOR).content.decode())
    assert here.post(AUTHENTICATOR, {"code": code(secret=secret)}).status_code == 200
    assert is_in(here)
    assert not is_in(there)


def test_a_superuser_ends_anothers_and_nobody_else_does(root: User) -> None:
    carol, dave = administrator("carol", app=True, superuser=False), administrator("dave", app=True)
    carol.user_permissions.add(*Permission.objects.filter(codename__in=("change_user", "view_user")))
    of_carol, of_dave, mine = signed_in("carol"), signed_in("dave"), signed_in()
    page = f"/admin/auth/user/{dave.pk}/"
    assert "data-session" not in of_carol.get(f"{page}change/").content.decode()
    for name in ("end_sessions", "reset_second_factor"):
        assert of_carol.post(f"{page}do/{name}/").status_code == 403
    assert is_in(of_dave)
    assert "data-session" in mine.get(f"{page}change/").content.decode()
    assert mine.post(f"{page}do/end_sessions/").status_code == 302
    assert not is_in(of_dave)
    assert "Ended 1 of their sessions." in history(dave)


def test_a_superuser_resets_anothers_second_factor(root: User) -> None:
    dave = administrator("dave", app=True)
    recovery_codes(dave)
    of_dave, mine = signed_in("dave"), signed_in()
    half = with_password("dave")
    mine.post(f"/admin/auth/user/{dave.pk}/do/reset_second_factor/")
    assert not is_in(of_dave)
    assert leads_to(half.get("/admin/")) == "/admin/login/"
    for model in (AdminAuthenticator, RecoveryCode, AdminGuesses):
        assert not model.objects.filter(administrator=dave).exists()
    assert leads_to(with_password("dave").get("/admin/")) == f"{ACCOUNT}enrol/"
    assert "Reset the second factor; 2 sessions ended." in history(dave)
    mine.post(f"/admin/auth/user/{root.pk}/do/reset_second_factor/")
    assert AdminAuthenticator.objects.filter(administrator=root).exists()


def test_a_command_on_the_machine_resets_it(root: User) -> None:
    client = signed_in()
    call_command("reset_second_factor", "root", stdout=StringIO())
    assert not is_in(client)
    assert leads_to(with_password().get("/admin/")) == f"{ACCOUNT}enrol/"
    assert "by a command on the machine" in history(root)
    with pytest.raises(CommandError, match="there are: root"):
        call_command("reset_second_factor", "--", "nobody")


def test_a_one_time_password_does_not_stand_in_for_the_second_factor(root: User) -> None:
    client, out = signed_in(), StringIO()
    call_command("new_password", "root", stdout=out)
    assert not is_in(client)
    half = Client()
    half.post("/admin/login/", {"username": "root", "password": out.getvalue().strip()})
    assert leads_to(half.get("/admin/password_change/")) == f"{ACCOUNT}verify/"


def test_who_is_deleted_is_gone_with_all_of_it(root: User) -> None:
    dave = administrator("dave", app=True)
    recovery_codes(dave)
    of_dave, mine = signed_in("dave"), signed_in()
    page = f"/admin/auth/user/{dave.pk}/delete/"
    assert mine.get(page).status_code == 200
    assert mine.post(page, {"post": "yes"}).status_code == 302
    assert not User.objects.filter(username="dave").exists()
    assert not is_in(of_dave)
    for model in (AdminSession, AdminAuthenticator, RecoveryCode):
        assert not model.objects.exclude(administrator=root).exists()
