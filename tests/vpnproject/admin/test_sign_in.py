"""Signing in to the admin has a budget of wrong attempts."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from users.models import OneTimePassword

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
        assert (answer.status_code, answer.headers["Location"]) == (302, "/admin/password_change/")
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
