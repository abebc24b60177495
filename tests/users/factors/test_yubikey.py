"""YubiKey OTP against Debian's validation server, with what keys really type; and against servers that lie."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from django.core.exceptions import ValidationError
from django.test import Client as Browser

from core.crypto import Secret
from servers.models import ServerFactor
from servers.policy import policy_of
from tests.admin_site import messages, staff
from tests.attempts import an_attempt, enrol
from tests.counterpart import Asked, Said, serving
from tests.factories import Company
from tests.protocol_client import NOW
from tests.users.factors.yubiserver import Key, Yubiserver, yubiserver
from users.authorize import authorize
from users.factors.base import AskedFactor, Case, Denied
from users.factors.providers import config_of
from users.factors.registry import load
from users.factors.wanted import profile_flags
from users.factors.yubikey.enrolment import add_key, keys_of, remove_key
from users.factors.yubikey.form import YubiKeyService
from users.factors.yubikey.validation import Client, decoded_key, read_answer, signature, validate
from users.factors.yubikey.validation import Said as Outcome
from users.models import Enrolment, Provider, VpnUser

API_KEY = "dGVzdC1rZXktMDEyMzQ1Njc4OQ=="
OTP = "c" * 12 + "b" * 32


@pytest.fixture(scope="module")
def mine() -> Key:
    return Key("cccccccccccb")


@pytest.fixture(scope="module")
def bobs() -> Key:
    return Key("cccccccccccd")


@pytest.fixture(scope="module")
def server(mine: Key, bobs: Key) -> Iterator[Yubiserver]:
    with yubiserver(mine, bobs) as running:
        yield running


@pytest.fixture
def alice(company: Company, mine: Key) -> VpnUser:
    """Asked for her YubiKey and nothing else."""
    company.server.factors.all().delete()
    ServerFactor.objects.create(server=company.server, kind="yubikey")
    user = company.hire("alice")[0]
    add_key(user, mine.public)
    return user


def a_service(*urls: str, key: str = API_KEY, client_id: str = "1", **settings: Any) -> Provider:
    says = {"servers": "\n".join(urls), "client_id": client_id, **settings}
    return Provider.objects.create(
        kind="yubikey", name="keys", settings=says, secrets=Secret.of(json.dumps({"secret_key": key}))
    )


def code(company: Company, user: VpnUser, typed: str, **attempt: Any) -> str:
    return getattr(authorize(user, policy_of(company.server), an_attempt(typed, **attempt), NOW), "code", "allowed")


# Against the real server.


def test_each_touch_passes_once_and_for_its_own_attempt_again(
    company: Company, alice: VpnUser, server: Yubiserver, mine: Key
) -> None:
    a_service(server.url, key=server.key)
    otp = mine.touch()
    assert code(company, alice, otp) == "allowed"
    assert code(company, alice, otp) == "allowed"  # the client offers it to the next host
    assert code(company, alice, otp, wg_public_key="key-2") == "yubikey_used"
    assert code(company, alice, mine.touch().upper()) == "allowed"  # Caps Lock


def test_one_that_expired_by_a_later_touch_is_a_used_one(
    company: Company, alice: VpnUser, server: Yubiserver, mine: Key
) -> None:
    a_service(server.url, key=server.key)
    earlier, later = mine.touch(), mine.touch()
    assert code(company, alice, later) == "allowed"
    assert code(company, alice, earlier, wg_public_key="key-2") == "yubikey_used"


def test_what_is_wrong_or_of_another_user_is_refused_and_uses_nothing_up(
    company: Company, alice: VpnUser, server: Yubiserver, mine: Key, bobs: Key
) -> None:
    a_service(server.url, key=server.key)
    assert code(company, alice, mine.public + "b" * 32) == "yubikey_wrong"
    otp = bobs.touch()
    assert code(company, alice, otp) == "yubikey_not_theirs"
    assert code(company, alice, "123456") == "yubikey_wrong"
    bob = company.hire("bob")[0]
    add_key(bob, bobs.public)
    assert code(company, bob, otp) == "allowed"


@pytest.mark.parametrize("order", ["{pin}{otp}", "{otp}{pin}"])
def test_a_pin_and_a_touch_in_either_order_and_a_wrong_pin_costs_no_touch(
    company: Company, alice: VpnUser, server: Yubiserver, mine: Key, order: str
) -> None:
    a_service(server.url, key=server.key)
    ServerFactor.objects.create(server=company.server, kind="pin")
    enrol(alice, "w0mbat")
    add_key(alice, mine.public)
    assert profile_flags(alice, policy_of(company.server), NOW).password_mode == "yubikey_pin"
    otp = mine.touch()
    assert code(company, alice, order.format(pin="w0mbet", otp=otp)) == "pin_wrong"
    assert code(company, alice, order.format(pin="w0mbat", otp=otp), wg_public_key="key-2") == "allowed"


def test_the_service_can_be_tried(server: Yubiserver, db: None) -> None:
    service = a_service(server.url, key=server.key)
    assert "its signature is right" in load("yubikey").try_out(config_of(service, YubiKeyService))


def test_a_key_is_added_by_touching_it_and_removed(
    company: Company, alice: VpnUser, server: Yubiserver, mine: Key, bobs: Key, client: Browser
) -> None:
    staff(client, superuser=True)
    page, button = (f"/admin/users/vpnuser/{alice.pk}/{what}/" for what in ("change", "do/act_on_factor"))

    def do(action: str, **sent: str) -> str:
        return messages(client, button, {"factor": "yubikey", "action": action, **sent})

    otp = bobs.touch()
    assert "Say first which service" in do("add", otp=otp)
    a_service(server.url, key=server.key)
    assert "not what a YubiKey types" in do("add", otp="cccc")
    assert "does not know" in do("add", otp=bobs.public + "b" * 32)
    assert f"Added the YubiKey {bobs.public} to alice." in do("add", otp=otp)
    assert "used already" in do("add", otp=otp)
    assert "has this YubiKey already" in do("add", otp=mine.touch())
    assert list(keys_of(Enrolment.objects.get())) == [mine.public, bobs.public]
    assert bobs.public in client.get(page).content.decode()
    assert code(company, alice, bobs.touch()) == "allowed"
    assert f"Removed the YubiKey {bobs.public}" in do("remove", key=bobs.public)
    assert "no such YubiKey" in do("remove", key=bobs.public)
    assert code(company, alice, bobs.touch()) == "yubikey_not_theirs"
    remove_key(alice, mine.public)
    assert code(company, alice, mine.touch()) == "yubikey_not_enrolled"


# Against servers that lie, or say what the real one never does.


def test_signatures_are_those_of_the_protocol() -> None:
    key = decoded_key(API_KEY)
    asked = {"id": "1", "nonce": "abcdefghijklmnop1234", "otp": OTP}
    assert signature(asked, key) == "JTNdSmY9CNxsOovN0EZBqZLomx4="
    said = {**asked, "sl": "100", "status": "OK", "t": "2020-01-01T00:00:00Z0123"}
    del said["id"]
    assert signature(said, key) == "iYRcmRPE0eeawm019ypNH9uOBn4="


def saying(status: str, *, key: str = API_KEY, **changes: str | None) -> Callable[[Asked], Said]:
    """A server that checks what it is sent, and says ``status``, with ``changes`` to what it would say then (None: left
    out) and signed with ``key``."""

    def answer(asked: Asked) -> Said:
        sent = dict(parse_qsl(urlsplit(asked.path).query))
        assert sent.pop("h") == signature(sent, decoded_key(API_KEY))
        assert len(sent["nonce"]) == 32
        said = {"t": "2026-01-01T00:00:00Z0001", "otp": sent["otp"], "nonce": sent["nonce"], "status": status}
        said = {name: value for name, value in (said | changes).items() if value is not None}
        lines = [f"h={signature(said, decoded_key(key))}", *(f"{name}={value}" for name, value in said.items())]
        return Said(body="".join(f"{line}\r\n" for line in lines).encode() + b"\r\n")

    return answer


def ask(*handlers: Callable[[Asked], Said]) -> tuple[Outcome, list[int]]:
    """What came out, and how often each server was asked; all with one nonce."""
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(each)) for each in handlers]
        said = validate(Client("1", API_KEY, [f"{each.url}/wsapi/2.0/verify" for each in servers]), OTP)
        nonces = {dict(parse_qsl(urlsplit(each.path).query))["nonce"] for server in servers for each in server.asked}
        assert len(nonces) == 1
        return said, [len(each.asked) for each in servers]


@pytest.mark.parametrize(
    ("handler", "outcome"),
    [
        (saying("OK"), Outcome.GOOD),
        (saying("BAD_OTP"), Outcome.WRONG),
        (saying("BAD_OTP", otp=None, nonce=None), Outcome.WRONG),
        (saying("REPLAYED_OTP"), Outcome.USED),
        (saying("REPLAYED_REQUEST"), Outcome.SILENT),
        (saying("BACKEND_ERROR"), Outcome.SILENT),
        (saying("NOT_ENOUGH_ANSWERS"), Outcome.SILENT),
        (saying("NEVER_HEARD_OF"), Outcome.SILENT),
        (saying("NO_SUCH_CLIENT", key=""), Outcome.REFUSED),
        (saying("BAD_SIGNATURE"), Outcome.REFUSED),
        (saying("OPERATION_NOT_ALLOWED"), Outcome.REFUSED),
        (saying("OK", key="b3RoZXI="), Outcome.NOT_BELIEVED),
        (saying("OK", key=""), Outcome.NOT_BELIEVED),
        (saying("REPLAYED_OTP", key="b3RoZXI="), Outcome.NOT_BELIEVED),
        (saying("OK", nonce="abcdefghijklmnop1234"), Outcome.NOT_BELIEVED),
        (saying("OK", nonce=None), Outcome.NOT_BELIEVED),
        (saying("OK", otp="c" * 12 + "d" * 32), Outcome.NOT_BELIEVED),
        (saying("OK", otp=None), Outcome.NOT_BELIEVED),
        (lambda asked: Said(body=b"status=OK\r\n"), Outcome.NOT_BELIEVED),
        (lambda asked: Said(body=b"status=BAD_OTP\r\nstatus=OK\r\n"), Outcome.SILENT),
        (lambda asked: Said(body=b"<html>"), Outcome.SILENT),
        (lambda asked: Said(body=b"\xff\xfe"), Outcome.SILENT),
        (lambda asked: Said(503), Outcome.SILENT),
        (lambda asked: Said(raw=b""), Outcome.SILENT),
    ],
)
def test_what_is_made_of_an_answer(handler: Callable[[Asked], Said], outcome: Outcome) -> None:
    assert ask(handler)[0] is outcome


def test_the_next_server_is_asked_until_one_settles_it() -> None:
    liar, dead, good = saying("OK", key=""), saying("BACKEND_ERROR"), saying("OK")
    assert ask(liar, dead, good, good) == (Outcome.GOOD, [1, 1, 1, 0])
    assert ask(saying("REPLAYED_OTP"), good) == (Outcome.USED, [1, 0])
    assert ask(dead, liar, dead) == (Outcome.NOT_BELIEVED, [1, 1, 1])


@pytest.mark.parametrize(
    ("handler", "refusal"),
    [
        (saying("OK", key=""), "yubikey_not_believed"),
        (saying("NO_SUCH_CLIENT"), "yubikey_refused"),
        (saying("BACKEND_ERROR"), "yubikey_unavailable"),
    ],
)
def test_who_cannot_be_judged_is_refused_unless_the_administrator_said_otherwise(
    company: Company, alice: VpnUser, mine: Key, handler: Callable[[Asked], Said], refusal: str
) -> None:
    otp = mine.public + "b" * 32
    with serving(handler) as service:
        a_service(f"{service.url}/verify")
        assert code(company, alice, otp) == refusal
        assert not hasattr(alice, "wrong_attempts")
        ServerFactor.objects.update(if_unavailable="skip")
        if refusal != "yubikey_unavailable":
            assert code(company, alice, otp) == refusal
            return
        verdict = authorize(alice, policy_of(company.server), an_attempt(otp), NOW)
        assert ("yubikey", f"skipped_{refusal.removeprefix('yubikey_')}") in verdict.layers
        assert code(company, alice, "c" * 12 + "b" * 32) == "yubikey_not_theirs"  # what we can judge ourselves


def test_an_answer_for_a_key_that_was_removed_meanwhile_lets_nobody_in(
    company: Company, alice: VpnUser, mine: Key
) -> None:
    good = saying("OK")
    factor, enrolment = load("yubikey"), Enrolment.objects.get()
    with serving(good) as service:
        provider = config_of(a_service(f"{service.url}/verify"), YubiKeyService)
        case = Case(alice, "a1b2c3", enrolment, AskedFactor("yubikey", provider=provider), an_attempt(), NOW)
        remove_key(alice, mine.public)
        assert factor.claim(case, mine.public + "d" * 32) == Denied("not_theirs")
        assert len(service.asked) == 1


@pytest.mark.parametrize(
    "wrong",
    [{"client_id": "one"}, {"key": "no base64!"}, {"key": ""}, {"servers": "localhost"}, {"ca": "nonsense"}],
    ids=str,
)
@pytest.mark.django_db
def test_a_service_that_cannot_be_asked_is_not_stored(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        a_service(**{"servers": "https://keys.example/verify", **wrong})


def test_answers_are_read_by_their_first_equals_sign() -> None:
    assert read_answer("h=ab=\r\nstatus=OK\r\n\r\n") == {"h": "ab=", "status": "OK"}
