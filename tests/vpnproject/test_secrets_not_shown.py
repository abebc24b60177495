"""No secret in a repr, a text, a log line, an exception or a stored decision, through whole runs of the API."""

from __future__ import annotations

import dataclasses
import json
import logging
import pickle
import traceback
from typing import Any

import pytest
from django.conf import LazySettings
from django.forms.models import model_to_dict

from core import rate_limits
from core.crypto import CannotDecrypt, Secret
from core.redis_store import redis_client
from tests.attempts import TOTP_SECRET, an_attempt, ask, code_at, enrol
from tests.factories import Company, HostStandIn
from tests.protocol_client import NOW, VECTORS, Identity, make_request, plaintext
from users.models import RememberedPass, VpnUser
from wgpeers.lifecycle import accounts
from wgpeers.models import Connection, Decision
from wgpeers.protocol import envelope

PIN = "w0mbat135"
TOKEN = "factor-token-of-the-client"


@pytest.fixture
def alice(company: Company) -> tuple[VpnUser, Identity]:
    user, identity = company.hire("alice")
    ask(company.server, "required", totp=True)
    company.server.factor_token_ttl = 3600
    company.server.save()
    return enrol(user, PIN, totp=True), identity


def secrets_of(identity: Identity) -> list[str]:
    key = VECTORS["user_private_key_pkcs8"].splitlines()[5]
    box = VECTORS["server_box_private_key"]
    return [identity.secret, identity.token, PIN, TOKEN, code_at(NOW), TOTP_SECRET, key, box]


def assert_hidden(text: str, identity: Identity) -> None:
    assert [secret for secret in secrets_of(identity) if secret in text] == []


def connect(identity: Identity, **fields: Any) -> Any:
    values = {"password": PIN + code_at(NOW), "token": TOKEN} | fields
    return make_request(identity, plaintext(**values)).send()


def test_a_secret_prints_as_dots_however_it_is_printed() -> None:
    secret = Secret.of("swordfish")
    shown = [repr(secret), str(secret), f"{secret}", "%s %r" % (secret, secret), repr([secret]), repr({"a": secret})]  # noqa: UP031
    assert not any("swordfish" in text or secret.stored in text for text in shown)
    assert b"swordfish" not in pickle.dumps(secret)
    with pytest.raises(AttributeError):
        secret.plain = "swordfish"  # type: ignore[attr-defined]


def test_nothing_that_holds_secrets_shows_them(company: Company, alice: tuple[VpnUser, Identity]) -> None:
    user, identity = alice
    account = accounts.find(identity.organization, identity.user, identity.server)
    assert account is not None
    request = make_request(identity, plaintext(password=PIN + code_at(NOW), token=TOKEN))
    headers = {name.lower().removeprefix("auth-"): value for name, value in request.headers.items()}
    signed = envelope.parse("POST", request.path, headers, json.dumps(request.body).encode())
    authentic = envelope.authenticate(signed, account.credentials)
    opened = envelope.open_request(authentic, NOW, 600)
    holders = [an_attempt(PIN + code_at(NOW), TOKEN), authentic, opened, account, account.credentials, signed, user]
    for holder in holders:
        assert_hidden(f"{holder!r} {holder!s}", identity)
    assert_hidden(repr(vars(user)), identity)
    assert_hidden(repr(model_to_dict(user)), identity)
    assert_hidden(repr(dataclasses.asdict(account.credentials)), identity)


def test_a_whole_run_logs_and_stores_none(
    company: Company, alice: tuple[VpnUser, Identity], host: HostStandIn, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    _, identity = alice
    key = plaintext()["wg_public_key"]
    answers = [
        connect(identity, wg_public_key=key),
        make_request(identity, plaintext(wg_public_key=key), method="PUT").send(),
        connect(identity, password="0000" + code_at(NOW), token=""),
        connect(identity, password=f"{PIN}000000", token="", device_id="other"),
        connect(identity, password="", token=""),
        connect(identity, wg_public_key=key, device_id="other"),
        connect(identity, wg_public_key="no key"),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 200, 200, 400]
    assert sum(Decision.objects.values_list("count", flat=True)) >= 6
    for model in (Decision, Connection, RememberedPass):
        assert_hidden(repr(list(model.objects.values())), identity)
    assert_hidden(repr(host.messages), identity)
    redis = [*redis_client().keys("*"), *(redis_client().type(name) for name in redis_client().keys("*"))]
    assert_hidden(repr(redis), identity)
    assert_hidden(caplog.text, identity)
    assert_hidden(repr([record.__dict__ for record in caplog.records]), identity)


def test_a_crash_in_the_middle_logs_its_traceback_without_secrets(
    alice: tuple[VpnUser, Identity],
    host: HostStandIn,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def crash(*args: object, **kwargs: object) -> None:
        raise RuntimeError(f"crashed with {args!r} {kwargs!r}")

    monkeypatch.setattr("wgpeers.views.authorize", crash)
    caplog.set_level(logging.DEBUG)
    answer = connect(alice[1])
    assert answer.status_code == 500
    assert "crashed with" in caplog.text
    assert_hidden(caplog.text + answer.content.decode(), alice[1])


def test_a_lost_field_key_is_a_5xx_that_shows_nothing(
    alice: tuple[VpnUser, Identity], host: HostStandIn, caplog: pytest.LogCaptureFixture, settings: LazySettings
) -> None:
    from cryptography.fernet import Fernet

    VpnUser.objects.update(sync_secret=Secret(Fernet(Fernet.generate_key()).encrypt(b"lost").decode()))
    answer = connect(alice[1])
    assert answer.status_code == 500
    assert "FIELD_KEYS" in caplog.text
    assert_hidden(caplog.text + answer.content.decode(), alice[1])


def test_exceptions_say_nothing_secret() -> None:
    broken = Secret("gAAAAA-nonsense")
    try:
        broken.reveal()
    except CannotDecrypt:
        shown = traceback.format_exc()
    assert "nonsense" not in shown
    assert "42" in str(rate_limits.TooManyAttempts(42))
