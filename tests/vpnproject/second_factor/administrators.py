"""Administrators who sign in, and what they have."""

from __future__ import annotations

import re
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client

from core import clock, totp
from core.crypto import Secret
from core.models import AdminAuthenticator
from core.second_factor import recovery
from tests.attempts import TOTP_SECRET, code_at, wrong_code

PASSWORD = "a long enough password"
VERIFY, CONFIRM, ENROL = (f"/admin/second-factor/{name}/" for name in ("verify", "confirm", "enrol"))
ACCOUNT = "/admin/second-factor/"
AUTHENTICATOR = "/admin/second-factor/authenticator/"


def administrator(name: str = "root", *, app: bool = False, superuser: bool = True) -> User:
    user = User.objects.create_user(name, password=PASSWORD, is_staff=True, is_superuser=superuser)
    if app:
        give_app(user)
    return user


def give_app(user: User) -> None:
    secret, now = Secret.of(TOTP_SECRET), clock.moment(clock.now())
    AdminAuthenticator.objects.create(administrator=user, secret=secret, counter=0, created=now)


def with_password(name: str = "root", address: str = "192.0.2.7", **headers: Any) -> Client:
    """A browser in which the right password was given, and no more."""
    client = Client(REMOTE_ADDR=address, **headers)
    assert client.post("/admin/login/", {"username": name, "password": PASSWORD}).status_code == 302
    return client


def code(steps: int = 0, secret: str = TOTP_SECRET) -> str:
    """What the app shows ``steps`` times 30 s from now."""
    return code_at(clock.now() + steps * totp.STEP, secret)


def wrong() -> str:
    return wrong_code(clock.now())


def signed_in(name: str = "root", **headers: Any) -> Client:
    """The code that it uses up is another time's for each call: the clock stands still."""
    client = with_password(name, **headers)
    row = AdminAuthenticator.objects.get(administrator__username=name)
    AdminAuthenticator.objects.filter(pk=row.pk).update(counter=0)
    assert client.post(VERIFY, {"code": code()}).status_code == 302
    return client


def is_in(client: Client) -> bool:
    return client.get("/admin/").status_code == 200


def leads_to(response: Any) -> str:
    """The path that it redirects to, without what comes after."""
    assert response.status_code == 302, response.status_code
    return str(response.headers["Location"]).partition("?")[0]


def recovery_codes(user: User) -> list[str]:
    return recovery.renew(user, clock.now())


def shown_secret(page: str) -> str:
    found = re.search(r'id="totp-secret"[^>]*>([A-Z2-7]+)<', page)
    assert found, page
    return found[1]


def history(user: User) -> str:
    return "\n".join(entry.get_change_message() for entry in LogEntry.objects.filter(object_id=str(user.pk)))
