"""Whoever waits for somebody else holds no connection to the database meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connection, transaction

from core.clock import moment
from core.crypto import Secret
from core.letting_go import let_go_of_database
from core.redis_store import redis_client
from servers.policy import policy_of
from tests.attempts import an_attempt
from tests.counterpart import serving
from tests.factories import Company
from tests.protocol_client import NOW
from tests.users.factors.oidc.attempts import a_provider
from tests.users.factors.radius.liar import Liar, reply
from tests.users.factors.radius.people import ask_radius, outcome
from users.authorize import authorize
from users.factors.base import AskedFactor, Case, Denied
from users.factors.once import once
from users.models import Provider, SignIn, VpnUser
from users.signin import sign_ins, waiting


class Database:
    """This thread's connection. ``held``: used, and not given back since."""

    held = False


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    found, close = Database(), connection.close

    def closed() -> None:
        found.held = False
        close()

    def used(execute: Callable[..., Any], *arguments: Any) -> Any:
        found.held = True
        return execute(*arguments)

    monkeypatch.setattr(connection, "close", closed)
    with connection.execute_wrapper(used):
        yield found


@pytest.fixture
def alice(company: Company) -> VpnUser:
    return company.hire("alice", email="alice@example.com")[0]


def test_while_a_radius_server_is_asked(company: Company, alice: VpnUser, database: Database) -> None:
    held: list[bool] = []

    def says(request: bytes, before: int) -> list[bytes]:
        held.append(database.held)
        return [reply(request)]

    with Liar() as liar:
        liar.says = says
        ask_radius(company.server, liar.address)
        assert outcome(alice, "sesame") == "allowed"
    assert held == [False]


def test_while_anything_is_asked_once_and_its_turn_awaited(alice: VpnUser, database: Database) -> None:
    """By which RADIUS and LDAP ask."""
    held: list[bool] = []

    def ask() -> Denied:
        held.append(database.held)
        return Denied()

    VpnUser.objects.count()
    assert database.held
    once(Case(alice, "s", None, AskedFactor("ldap"), an_attempt(), NOW), "secret", ask, 1.0)
    assert held == [False]


def test_while_a_service_is_asked_by_http(company: Company, alice: VpnUser, database: Database) -> None:
    held: list[bool] = []

    def handler(asked: Any) -> Any:
        held.append(database.held)
        raise OSError  # no answer is one too

    company.server.factors.all().delete()
    company.server.factors.create(kind="okta_otp")
    with serving(handler) as service:
        secrets = Secret.of(json.dumps({"token": "t"}))
        Provider.objects.create(kind="okta_otp", name="o", settings={"address": service.url}, secrets=secrets)
        authorize(alice, policy_of(company.server), an_attempt("123456"), NOW)
    assert held == [False]


def test_while_a_client_is_held_for_a_sign_in(
    alice: VpnUser, database: Database, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in = SignIn.objects.create(
        page="p" * 32, user=alice, kind="oidc", provider=a_provider("https://id.example.com"), expires=moment(NOW + 60)
    )
    held: list[bool] = []
    real = redis_client().blpop

    def listened(*arguments: Any, **more: Any) -> Any:
        held.append(database.held)
        sign_ins.end(sign_in, "ok")
        return real(*arguments, **more)

    settings.SIGN_IN_HOLD = 600.0  # it would be seen
    monkeypatch.setattr(redis_client(), "blpop", listened)
    assert not waiting.still_waits(alice, sign_ins.token_of(sign_in))
    assert held == [False]


def test_whoever_is_in_a_transaction_keeps_theirs(alice: VpnUser, database: Database) -> None:
    with transaction.atomic():
        VpnUser.objects.count()
        let_go_of_database()
        assert database.held
