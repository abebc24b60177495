"""What people are told when a page fails."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis
from django.contrib.sessions.backends.db import SessionStore
from django.db import OperationalError
from django.test import Client, RequestFactory
from django.urls import reverse

from tests.admin_site import PASSWORD, staff
from vpnproject import errors
from vpnproject.second_factor import urls as second_factor_urls
from wgpeers.admin import dashboard


@pytest.fixture
def admin(client: Client, db: None) -> Client:
    staff(client, superuser=True)
    client.raise_request_exception = False
    return client


def raises(error: Exception) -> object:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", [OperationalError("database or disk is full"), redis.ResponseError("MISCONF")])
def test_a_page_whose_store_takes_nothing_says_so(
    admin: Client, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(dashboard, "_warnings", raises(error))
    answer = admin.get("/admin/")
    assert (answer.status_code, answer["Retry-After"]) == (503, "10")
    assert "What you sent was not stored" in answer.content.decode()
    assert str(error) not in answer.content.decode()


def test_a_sign_in_that_cannot_be_stored_is_such_a_page(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raised by the session's middleware, and not by the view."""
    admin.logout()
    monkeypatch.setattr(SessionStore, "save", raises(OperationalError("attempt to write a readonly database")))
    answer = admin.post("/admin/login/", {"username": "superuser", "password": PASSWORD})
    assert answer.status_code == 503


def test_a_fault_of_ours_is_no_such_page(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "_warnings", raises(ValueError("x")))
    assert admin.get("/admin/").status_code == 500


def shown(answer: Any, status: int, words: str) -> None:
    """A page of ours, that loads and runs nothing."""
    text = answer.content.decode()
    assert answer.status_code == status
    assert words in text
    assert "<style>" in text
    assert answer["Content-Security-Policy"].startswith("default-src 'none'; style-src 'unsafe-inline';")


def test_a_fault_has_a_page_that_shows_nothing_of_it(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "_warnings", raises(ValueError("a secret")))
    answer = admin.get("/admin/")
    shown(answer, 500, "Something went wrong here")
    assert "a secret" not in answer.content.decode()


@pytest.mark.parametrize("path", ["/admin/nothing/", "/admin/users/nothing/", "/nothing", "/key", "/k"])
def test_what_is_not_there_has_a_page(admin: Client, path: str) -> None:
    answer = admin.get(path)
    shown(answer, 404, "There is no such page")
    assert ("To the first page" in answer.content.decode()) == path.startswith("/admin/")


def test_what_is_not_theirs_has_a_page(client: Client, db: None) -> None:
    staff(client)
    for path in ("/admin/users/vpnuser/", "/admin/servers/server/add/", "/admin/auth/user/"):
        shown(client.get(path), 403, "This is not for your account")


def test_a_form_whose_token_does_not_fit_has_a_page_that_says_what_to_do(db: None) -> None:
    client = Client(enforce_csrf_checks=True)
    shown(client.post("/admin/login/", {"username": "x", "password": "y"}), 403, "load the page anew")


@pytest.mark.parametrize("path", ["/key/wg/a/b/c", "/key/nothing", "/ku/nothing", "/key/sync/a/b/c/d"])
def test_programs_are_answered_in_json_whatever_fails(
    client: Client, db: None, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for request in (client.get, client.post, client.put):
        answer = request(path)
        assert answer["Content-Type"] == "application/json", (path, answer.content)
    request_ = RequestFactory().get(path)
    refused = Exception()
    for said in (
        errors.not_found(request_, refused),
        errors.forbidden(request_, refused),
        errors.not_from_our_page(request_),
    ):
        assert said["Content-Type"] == "application/json"
        json.loads(said.content)


def test_browsers_find_an_icon(client: Client, db: None) -> None:
    answer = client.get("/favicon.ico")
    assert (answer.status_code, answer["Location"]) == (302, "/static/core/icon.svg")


def test_the_address_of_a_button_has_a_page_that_says_so(admin: Client) -> None:
    """Of every one: what is opened by itself, or loaded anew, must not be an empty page."""
    found = 0
    for path in addresses_of_buttons():
        answer = admin.get(path)
        if answer.status_code == 405:
            found += 1
            assert "is done by a button" in answer.content.decode(), path
            assert "POST" in answer["Allow"]
            assert answer["Content-Security-Policy"] == errors.POLICY
    assert found > 5
    assert admin.get("/admin/").status_code == 200  # nobody was signed out


def addresses_of_buttons() -> list[str]:
    """Those of the site that name no row."""
    names = [f"second_factor:{pattern.name}" for pattern in second_factor_urls.urlpatterns]
    return [reverse(name) for name in ("admin:logout", *names)]


def test_programs_get_no_page_for_the_wrong_method(client: Client) -> None:
    assert b"<html" not in client.put("/key/wg/a/b/c").content
