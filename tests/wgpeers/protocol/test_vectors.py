"""The wire format, held to vectors that were made with other libraries."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from nacl.public import PrivateKey

from core.crypto import Secret
from tests.conftest import Clock
from tests.factories import Company, HostStandIn, vector_user
from tests.protocol_client import NOW, VECTORS, ClientRequest, open_answer
from wgpeers.protocol import envelope
from wgpeers.protocol.envelope import Credentials

REQUESTS = [name for name, case in VECTORS.items() if isinstance(case, dict) and "rsa_digest_hex" in case]
CREDENTIALS = ("sync_token", "sync_secret", "user_public_key", "server_box_private_key")


def credentials() -> Credentials:
    token, secret, rsa, box = (VECTORS[name] for name in CREDENTIALS)
    return Credentials(Secret.of(token), Secret.of(secret), rsa, Secret.of(box))


def parsed(case: dict[str, Any]) -> envelope.Signed:
    headers = {name.lower().removeprefix("auth-"): value for name, value in case["headers"].items()}
    body = json.dumps(case["body"]).encode() if "body" in case else b""
    return envelope.parse(case["method"], case["path"], headers, body)


def test_the_vectors_are_all_here() -> None:
    assert len(REQUESTS) == 9


@pytest.mark.parametrize("name", REQUESTS)
def test_signed_string_and_digest_are_those_of_the_vector(name: str) -> None:
    case = VECTORS[name]
    request = parsed(case)
    assert request.signed_string() == case["signed_string"]
    assert request.digest().hex() == case["rsa_digest_hex"]


@pytest.mark.parametrize("name", REQUESTS)
def test_request_opens_to_the_plaintext_of_the_vector(name: str) -> None:
    case = VECTORS[name]
    request = parsed(case)
    opened = envelope.open_request(envelope.authenticate(request, credentials()), request.timestamp, 600)
    expected = json.loads(case["plaintext"])
    assert opened.timestamp == expected["timestamp"]
    assert {key: opened.text(key) for key in envelope.TEXT_FIELDS} == {
        key: expected.get(key) or "" for key in envelope.TEXT_FIELDS
    }


@pytest.mark.parametrize("name", REQUESTS)
def test_our_seal_opens_with_the_clients_key(name: str) -> None:
    case = VECTORS[name]
    answer = json.loads(case["example_response_plaintext"])
    sealed = envelope.seal(answer, envelope.authenticate(parsed(case), credentials()))
    client_key = PrivateKey(base64.b64decode(case["client_box_private_key"]))
    identity = type(
        "Profile", (), {"secret": VECTORS["sync_secret"], "box_public_key": VECTORS["server_box_public_key"]}
    )
    assert open_answer(sealed, identity, client_key) == answer  # type: ignore[arg-type]


@pytest.mark.parametrize("name", REQUESTS)
def test_the_example_answer_has_our_signature(name: str) -> None:
    example = VECTORS[name]["example_response"]
    assert envelope.sign(f"{example['data']}&{example['nonce']}", credentials()) == example["signature"]


def test_sync_is_signed_as_in_the_vector() -> None:
    case = {"method": "GET", **VECTORS["sync"]}
    request = parsed(case)
    assert request.signed_string() == case["signed_string"]
    envelope.check_get(envelope.authenticate(request, credentials()), request.timestamp, 600)
    example = case["example_response"]
    assert envelope.sign(example["conf"], credentials()) == example["signature"]


def test_sign_in_answer_is_signed_as_in_the_vector() -> None:
    example = VECTORS["sign_in_needed"]["example_response"]
    assert envelope.sign(f"{example['sso_token']}&{example['sso_url']}", credentials()) == example["signature"]


def send(name: str) -> tuple[Any, ClientRequest]:
    case = VECTORS[name]
    box = PrivateKey(base64.b64decode(case["client_box_private_key"]))
    request = ClientRequest(case["method"], case["path"], case["headers"], case["body"], box)
    return request.send(), request


@pytest.mark.parametrize("name", ["connect", "connect_salt_equals_hash", "connect_with_device_key", "wait_for_sign_in"])
def test_connect_of_the_vector_is_allowed_over_http(name: str, company: Company, host: HostStandIn) -> None:
    identity = vector_user(company)
    response, request = send(name)
    assert response.status_code == 200
    answer = open_answer(response.json(), identity, request.box_private_key)
    assert answer["allow"] is True
    assert answer["configuration"]["address"] == "10.9.0.2/24"
    assert answer["configuration"]["gateway"] == "10.9.0.1"


def test_ping_of_the_vector_is_answered_over_http(company: Company, host: HostStandIn, fixed_clock: Clock) -> None:
    identity = vector_user(company)
    assert send("connect")[0].status_code == 200
    fixed_clock.now = NOW + 10
    response, request = send("ping")
    answer = open_answer(response.json(), identity, request.box_private_key)
    assert answer == {"status": True, "timestamp": NOW + 10}


def test_ping_of_a_revoked_peer_of_the_vector_is_told_so(company: Company) -> None:
    identity = vector_user(company)
    response, request = send("ping_of_a_revoked_peer")
    assert open_answer(response.json(), identity, request.box_private_key) == {"status": False, "timestamp": NOW}
