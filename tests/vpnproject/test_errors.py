"""What people are told when a page fails."""

from __future__ import annotations

import pytest
import redis
from django.contrib.sessions.backends.db import SessionStore
from django.db import OperationalError
from django.test import Client

from tests.admin_site import PASSWORD, staff
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
