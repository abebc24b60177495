"""Signing in to the admin has a budget of wrong attempts."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from users.models import OneTimePassword
from users.services import known_to_others

pytestmark = pytest.mark.django_db
PASSWORD = "a long enough password"


@pytest.fixture
def admin() -> User:
    return User.objects.create_superuser("root", password=PASSWORD)


def sign_in(password: str, address: str = "192.0.2.7", name: str = "root") -> tuple[int, str]:
    answer = Client(REMOTE_ADDR=address).post("/admin/login/", {"username": name, "password": password})
    return answer.status_code, answer.content.decode()


def test_the_right_password_signs_in_however_often(admin: User, settings: Settings) -> None:
    settings.ATTEMPTS_PER_USER = 2
    assert [sign_in(PASSWORD)[0] for _ in range(5)] == [302] * 5


def test_after_too_many_wrong_ones_the_right_one_waits_too(admin: User, settings: Settings) -> None:
    settings.ATTEMPTS_PER_USER = 3
    for _ in range(3):
        status, page = sign_in("wrong")
        assert status == 200
        assert "Too many attempts" not in page
    status, page = sign_in(PASSWORD)
    assert status == 200
    assert "Too many attempts. Try again in" in page
    assert sign_in(PASSWORD, name="ROOT")[0] == 200


def test_a_strangers_guesses_do_not_lock_the_admin_out_elsewhere(admin: User, settings: Settings) -> None:
    settings.ATTEMPTS_PER_USER = 3
    for _ in range(5):
        sign_in("wrong", address="198.51.100.9")
    assert sign_in(PASSWORD)[0] == 302


def test_no_sign_in_where_attempts_cannot_be_counted(admin: User, settings: Settings) -> None:
    settings.REDIS_URL = "unix:///nowhere/redis.sock"
    status, page = sign_in(PASSWORD)
    assert status == 200
    assert "Redis is down" in page


NEW_PASSWORD = "one that nobody else has seen"


def test_a_one_time_password_opens_nothing_but_the_page_to_choose_another(admin: User) -> None:
    OneTimePassword.objects.create(user=admin, password=admin.password)
    client = Client()
    client.force_login(admin)
    for path in ("/admin/", "/admin/users/vpnuser/", "/admin/users/vpnuser/add/"):
        answer = client.get(path)
        wanted = urlencode({"next": path})
        assert (answer.status_code, answer.headers["Location"]) == (302, f"/admin/password_change/?{wanted}")
    assert client.get("/admin/password_change/").status_code == 200
    fields = {"old_password": PASSWORD, "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    assert client.post("/admin/password_change/", fields).status_code == 302
    assert client.get("/admin/").status_code == 200


def test_the_same_password_cannot_be_chosen_again(admin: User) -> None:
    OneTimePassword.objects.create(user=admin, password=admin.password)
    client = Client()
    client.force_login(admin)
    fields = {"old_password": PASSWORD, "new_password1": PASSWORD, "new_password2": PASSWORD}
    answer = client.post("/admin/password_change/", fields)
    assert answer.status_code == 200
    assert "different from the one-time password" in answer.content.decode()
    assert client.get("/admin/").status_code == 302


def test_who_has_a_password_of_their_own_notices_nothing(admin: User) -> None:
    client = Client()
    client.force_login(admin)
    assert client.get("/admin/").status_code == 200


def test_the_first_sign_in_says_why_and_leads_on(admin: User) -> None:
    known_to_others(admin)
    client = Client(REMOTE_ADDR="192.0.2.7")
    wanted = "/admin/users/vpnuser/?q=alice"
    page = client.post(
        f"/admin/login/?{urlencode({'next': wanted})}", {"username": "root", "password": PASSWORD}, follow=True
    )
    assert "Somebody else knows the password" in page.content.decode()
    fields = {"old_password": PASSWORD, "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    address = f"{page.request['PATH_INFO']}?{page.request['QUERY_STRING']}"
    assert "Somebody else" in client.post(address, fields | {"old_password": "wrong"}).content.decode()
    answer = client.post(address, fields, follow=True)
    assert answer.redirect_chain == [(wanted, 302)]
    assert "You have a password of your own now." in answer.content.decode()


@pytest.mark.parametrize("elsewhere", ["https://example.com/", "//example.com", "javascript:alert(1)", ""])
def test_it_leads_to_no_other_site(admin: User, elsewhere: str) -> None:
    known_to_others(admin)
    client = Client()
    client.force_login(admin)
    fields = {"old_password": PASSWORD, "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    answer = client.post(f"/admin/password_change/?{urlencode({'next': elsewhere})}", fields)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/admin/")


def test_who_changes_their_password_of_their_own_will_is_told_nothing_of_others(admin: User) -> None:
    client = Client()
    client.force_login(admin)
    assert "Somebody else" not in client.get("/admin/password_change/").content.decode()
    fields = {"old_password": PASSWORD, "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    answer = client.post("/admin/password_change/?next=/admin/users/vpnuser/", fields)
    assert answer.headers["Location"] == "/admin/password_change/done/"


def signed_in(name: str, password: str) -> Any:
    """What they see first."""
    return Client(REMOTE_ADDR="192.0.2.8").post(
        "/admin/login/?next=/admin/", {"username": name, "password": password}, follow=True
    )


def test_an_administrator_made_in_the_admin_signs_in_at_once_and_chooses_a_password(admin: User) -> None:
    client = Client()
    client.force_login(admin)
    fields = {"username": "carol", "usable_password": "true", "password1": PASSWORD, "password2": PASSWORD}
    assert client.post("/admin/auth/user/add/", fields).status_code == 302
    page = signed_in("carol", PASSWORD)
    assert page.status_code == 200
    assert "Choose a password of your own" in page.content.decode()


def test_a_password_that_another_administrator_set_is_good_for_one_sign_in(admin: User) -> None:
    carol = User.objects.create_user("carol", password=PASSWORD, is_staff=True)
    assert "Somebody else" not in signed_in("carol", PASSWORD).content.decode()
    client = Client()
    client.force_login(admin)
    fields = {"usable_password": "true", "password1": NEW_PASSWORD, "password2": NEW_PASSWORD}
    page = f"/admin/auth/user/{carol.pk}/password/"
    assert client.post(page, fields | {"password2": "another"}).status_code == 200
    assert "Somebody else" not in signed_in("carol", PASSWORD).content.decode()
    assert client.post(page, fields).status_code == 302
    assert "Somebody else" in signed_in("carol", NEW_PASSWORD).content.decode()
    assert client.post(f"/admin/auth/user/{admin.pk}/password/", fields).status_code == 302
    assert "Somebody else" not in signed_in("root", NEW_PASSWORD).content.decode()
