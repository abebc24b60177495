"""After a right password alone, nothing of the admin opens but the step that is due."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from pytest_django import Settings

from core.models import AdminAuthenticator
from tests.conftest import Clock
from users.services import known_to_others
from vpnproject.middleware import CLIENT_PATHS
from vpnproject.second_factor.gate import ALWAYS, STEPS

from .administrators import (
    ACCOUNT,
    AUTHENTICATOR,
    ENROL,
    PASSWORD,
    VERIFY,
    administrator,
    code,
    give_app,
    history,
    is_in,
    leads_to,
    shown_secret,
    with_password,
    wrong,
)

pytestmark = pytest.mark.django_db
VALUES = {"int": "1", "slug": "x", "path": "1", "str": "1"}


@pytest.fixture(autouse=True)
def required(settings: Settings, fixed_clock: Clock) -> None:
    settings.ADMIN_SECOND_FACTOR = "required"


def routes(resolver: URLResolver, before: str = "/") -> Iterator[str]:
    """An address of every view there is."""
    for pattern in resolver.url_patterns:
        text = re.sub(r"<(?:(\w+):)?\w+>", lambda found: VALUES.get(found[1] or "str", "1"), str(pattern.pattern))
        text = re.sub(r"\(\?P<\w+>[^)]*\)", "x", text).strip("^$").replace("\\", "")
        if isinstance(pattern, URLPattern):
            yield before + text
        else:
            yield from routes(pattern, before + text)


EVERY = sorted({path for path in routes(get_resolver()) if not path.startswith(CLIENT_PATHS)})


def open_pages(step: int) -> set[str]:
    return {reverse(name) for name in (*STEPS[step].pages, *ALWAYS)}


def test_every_address_is_known() -> None:
    assert len(EVERY) > 100
    for path in ("/admin/", "/admin/auth/user/add/", "/admin/users/vpnuser/1/do/x/", "/admin/autocomplete/", VERIFY):
        assert path in EVERY


@pytest.mark.parametrize("step", [0, 1, 2], ids=["second factor", "own password", "enrolment"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_nothing_else_opens_at_any_address(step: int, method: str) -> None:
    user = administrator(app=step == 0)
    if step <= 1:
        known_to_others(user)  # who has a factor shows it first
    client = Client()
    client.force_login(user)
    due = reverse(STEPS[step].pages[0])
    for path in (*EVERY, "/admin/nothing/at/all/", "/nothing"):
        if path in open_pages(step):
            continue
        answer = getattr(client, method)(path, {"action": "x"}, HTTP_X_REQUESTED_WITH="XMLHttpRequest")
        assert leads_to(answer) == due, path
    assert client.get(due).status_code == 200


def test_what_is_open_is_named_here() -> None:
    below = "/admin/second-factor/"
    always = {"/admin/logout/", "/admin/jsi18n/"}
    assert open_pages(0) == always | {VERIFY, f"{below}passkeys/question/", f"{below}passkeys/verify/"}
    assert open_pages(1) == always | {"/admin/password_change/"}
    creating = {f"{below}passkeys/creation/", f"{below}passkeys/add/"}
    assert open_pages(2) == always | {ENROL, AUTHENTICATOR} | creating


def test_who_has_none_sets_one_up_and_gets_to_where_they_wanted() -> None:
    user = administrator()
    client = with_password()
    page = client.get("/admin/users/vpnuser/?q=alice", follow=True)
    assert "Set up an authenticator app" in page.content.decode()
    address = f"{AUTHENTICATOR}?{page.request['QUERY_STRING']}"
    begun = client.post(address)
    secret = shown_secret(begun.content.decode())
    assert "data:image/svg" in begun.content.decode()
    assert "no-store" in begun["Cache-Control"]
    again = client.post(address, {"code": wrong()}).content.decode()
    assert "not the app" in again
    assert secret not in again  # shown once
    assert not AdminAuthenticator.objects.exists()
    before = client.session.session_key
    done = client.post(address, {"code": code(secret=secret)}).content.decode()
    codes = re.findall(r"<code[^>]*>([0-9A-Z-]{19})</code>", done)
    assert len(set(codes)) == 10
    assert 'href="/admin/users/vpnuser/?q=alice"' in done
    assert is_in(client)
    assert client.session.session_key != before
    assert AdminAuthenticator.objects.get().secret.reveal() == secret
    assert "Set up an authenticator app" in history(user)
    assert not [text for text in (secret, *codes) if text in history(user)]


def test_the_code_that_was_shown_at_setting_up_does_not_sign_in(fixed_clock: Clock) -> None:
    administrator()
    client = with_password()
    secret = shown_secret(client.post(AUTHENTICATOR).content.decode())
    first = code(secret=secret)
    client.post(AUTHENTICATOR, {"code": first})
    other = with_password()
    assert "wrong, or was used already" in other.post(VERIFY, {"code": first}).content.decode()
    assert not is_in(other)
    fixed_clock.advance(30)
    assert leads_to(other.post(VERIFY, {"code": code(secret=secret)})) == "/admin/"


def test_a_second_factor_is_asked_for_after_the_password_and_the_session_is_another_one_then() -> None:
    user = administrator(app=True)
    client = with_password()
    assert leads_to(client.get("/admin/")) == VERIFY
    assert client.post(VERIFY, {"code": wrong()}).status_code == 200
    assert not is_in(client)
    before = client.session.session_key
    stolen = client.cookies["sessionid"].value
    answer = client.post(f"{VERIFY}?next=/admin/users/vpnuser/", {"code": code()})
    assert leads_to(answer) == "/admin/users/vpnuser/"
    assert is_in(client)
    assert client.session.session_key != before
    thief = Client()
    thief.cookies["sessionid"] = stolen
    assert leads_to(thief.get("/admin/")) == "/admin/login/"
    assert "Signed in from 192.0.2.7 with an authenticator." in history(user)


@pytest.mark.parametrize("elsewhere", ["https://example.com/", "//example.com", "javascript:alert(1)"])
def test_it_leads_to_no_other_site(elsewhere: str) -> None:
    administrator(app=True)
    client = with_password()
    assert client.post(f"{VERIFY}?next={elsewhere}", {"code": code()}).headers["Location"] == "/admin/"


def test_whoever_enrolled_meanwhile_is_not_enrolled_over() -> None:
    """Somebody who knows the password began to set up an app; its owner was quicker."""
    user = administrator()
    thief = with_password()
    secret = shown_secret(thief.post(AUTHENTICATOR).content.decode())
    give_app(user)
    assert leads_to(thief.post(AUTHENTICATOR, {"code": code(secret=secret)})) == VERIFY
    assert AdminAuthenticator.objects.get().counter == 0
    assert leads_to(thief.get(ENROL)) == VERIFY


def test_a_one_time_password_leads_to_ones_own_and_then_to_enrolment() -> None:
    user = administrator()
    known_to_others(user)
    client = with_password()
    page = client.get("/admin/users/vpnuser/", follow=True)
    assert "Somebody else knows the password" in page.content.decode()
    new = "one that nobody else has seen"
    fields = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
    address = f"{page.request['PATH_INFO']}?{page.request['QUERY_STRING']}"
    answer = client.post(address, fields, follow=True)
    assert answer.redirect_chain[-1][0] == f"{ENROL}?next=%2Fadmin%2Fusers%2Fvpnuser%2F"
    assert client.get(ACCOUNT).status_code == 302


def test_off_nobody_has_to_have_one_and_who_has_one_shows_it(settings: Settings) -> None:
    settings.ADMIN_SECOND_FACTOR = "off"
    administrator()
    administrator("carol", app=True)
    assert is_in(with_password())
    assert leads_to(with_password("carol").get("/admin/")) == VERIFY


def test_clients_and_static_paths_are_not_held_up(client: Client) -> None:
    client.force_login(administrator())
    assert client.get("/key/nothing").status_code == 404
    assert client.get("/k/nothing").status_code in (404, 200)
