"""The wire format against vectors made by an independent implementation, in both directions."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.public import PrivateKey
from wgpeer import envelope
from wgpeer.device_key import FileKey
from wgpeer.envelope import Ephemeral, InvalidResponse, open_response
from wgpeer.responses import Allowed, NotAllowed, read_connect, read_ping, read_sign_in
from wgpeer_fakes import BOX, VECTORS, hmac64, identity, open_request

CASES = [name for name, case in VECTORS.items() if isinstance(case, dict) and "plaintext" in case]


def box_key(case: dict[str, Any]) -> PrivateKey:
    return PrivateKey(base64.b64decode(case["client_box_private_key"]))


@pytest.mark.parametrize("name", CASES)
def test_signed_string_and_header_signature(name: str) -> None:
    case = VECTORS[name]
    message = envelope.signed_string(case["headers"], case["method"], case["path"], case["body"])
    assert message == case["signed_string"]
    assert envelope.mac(VECTORS["sync_secret"], message) == case["headers"]["Auth-Signature"]


@pytest.mark.parametrize("name", CASES)
def test_digest_and_rsa_signature(name: str) -> None:
    body = VECTORS[name]["body"]
    digest = envelope.body_digest(body["data"], body["nonce"], body["public_key"])
    assert digest.hex() == VECTORS[name]["rsa_digest_hex"]
    public = serialization.load_pem_public_key(VECTORS["user_public_key"].encode())
    assert isinstance(public, rsa.RSAPublicKey)
    scheme = padding.PSS(mgf=padding.MGF1(hashes.SHA512()), salt_length=padding.PSS.AUTO)
    public.verify(base64.b64decode(body["signature"]), digest, scheme, Prehashed(hashes.SHA512()))
    ours = envelope.sign_digest(identity().rsa_key, digest)
    public.verify(ours, digest, scheme, Prehashed(hashes.SHA512()))


@pytest.mark.parametrize("name", CASES)
def test_the_same_inputs_make_the_same_request(name: str) -> None:
    case = VECTORS[name]
    fresh = Ephemeral(box_key(case), base64.b64decode(case["body"]["nonce"]), case["headers"]["Auth-Nonce"])
    plaintext = json.loads(case["plaintext"])
    device = bool(case["body"]["device_signature"])
    who = identity(device_key=device_key() if device else None)
    now = int(case["headers"]["Auth-Timestamp"])
    sealed = envelope.seal(who, fresh, case["method"], case["path"], plaintext, now, device=device)
    body = json.loads(sealed.body)
    assert body["data"] == case["body"]["data"]
    assert body["nonce"] == case["body"]["nonce"]
    assert body["public_key"] == case["body"]["public_key"]
    for header in ("Auth-Token", "Auth-Timestamp", "Auth-Nonce"):
        assert sealed.headers[header] == case["headers"][header]
    assert open_request("", sealed.method, sealed.path, sealed.headers, sealed.body).plaintext == plaintext


def device_key() -> FileKey:
    key = serialization.load_pem_private_key(VECTORS["device_private_key_pkcs8"].encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return FileKey(key)


def test_device_key_and_signature() -> None:
    case = VECTORS["connect_with_device_key"]
    assert envelope.device_public(device_key()) == json.loads(case["plaintext"])["device_key"]
    digest = bytes.fromhex(case["rsa_digest_hex"])
    for raw in (
        base64.b64decode(case["body"]["device_signature"] + "=="),
        envelope.sign_device(device_key(), digest),
    ):
        device_key().key.public_key().verify(raw, digest, ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize("name", CASES)
def test_answers_open(name: str) -> None:
    case = VECTORS[name]
    opened = open_response(identity(), box_key(case), case["example_response"])
    assert opened == json.loads(case["example_response_plaintext"])


def test_answers_mean_what_they_say() -> None:
    def opened(name: str) -> dict[str, Any]:
        return open_response(identity(), box_key(VECTORS[name]), VECTORS[name]["example_response"])

    allowed = read_connect(opened("connect"))
    assert isinstance(allowed, Allowed)
    assert allowed.configuration.addresses == ("10.9.0.5/24", "fd01:0:0:9::5/64")
    assert allowed.configuration.web_no_ssl is True
    assert read_connect(opened("connect_refused")) == NotAllowed("Second factor refused")
    assert read_connect(opened("connect_with_unknown_device")) == NotAllowed("this device is not registered", "Q7KD")
    assert read_ping(opened("ping")) is True
    assert read_ping(opened("ping_of_a_revoked_peer")) is False


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("field", ["data", "nonce", "signature"])
def test_an_answer_with_a_flipped_field_is_refused(name: str, field: str) -> None:
    answer = VECTORS[name]["example_response"]
    raw = bytearray(base64.b64decode(answer[field]))
    raw[0] ^= 1
    flipped = answer | {field: base64.b64encode(bytes(raw)).decode()}
    with pytest.raises(InvalidResponse):
        open_response(identity(), box_key(VECTORS[name]), flipped)


@pytest.mark.parametrize("field", ["data", "nonce", "signature"])
def test_an_answer_with_a_field_dropped_or_odd_is_refused(field: str) -> None:
    case = VECTORS["connect"]
    for odd in (None, 7, "", "\ud800", "é", [], case["example_response"][field] + "A"):
        with pytest.raises(InvalidResponse):
            open_response(identity(), box_key(case), case["example_response"] | {field: odd})


def test_the_box_is_checked_even_when_the_hmac_holds() -> None:
    """Who has stolen the sync secret alone can sign, but not seal."""
    case = VECTORS["connect"]
    raw = bytearray(base64.b64decode(case["example_response"]["data"]))
    raw[-1] ^= 1
    data, nonce = base64.b64encode(bytes(raw)).decode(), case["example_response"]["nonce"]
    forged = {"data": data, "nonce": nonce, "signature": hmac64(f"{data}&{nonce}")}
    with pytest.raises(InvalidResponse, match="box"):
        open_response(identity(), box_key(case), forged)


def test_an_answer_to_another_request_is_refused() -> None:
    with pytest.raises(InvalidResponse, match="box"):
        open_response(identity(), box_key(VECTORS["ping"]), VECTORS["connect"]["example_response"])


def test_an_answer_of_another_server_is_refused() -> None:
    other = identity(server_box_key=PrivateKey.generate().public_key)
    with pytest.raises(InvalidResponse, match="box"):
        open_response(other, box_key(VECTORS["connect"]), VECTORS["connect"]["example_response"])


def test_sign_in_address_must_be_signed() -> None:
    answer = VECTORS["sign_in_needed"]["example_response"]
    assert read_sign_in(identity(), answer).url == answer["sso_url"]
    for field in ("sso_url", "sso_token", "signature"):
        with pytest.raises(InvalidResponse):
            read_sign_in(identity(), answer | {field: answer[field] + "x"})
        with pytest.raises(InvalidResponse):
            read_sign_in(identity(), {key: value for key, value in answer.items() if key != field})


def test_sync_request_and_answer() -> None:
    case = VECTORS["sync"]
    sealed = envelope.sign_sync(identity(), case["headers"]["Auth-Nonce"], case["path"], 1790000000)
    assert sealed.headers == case["headers"]
    assert envelope.signed_string(sealed.headers, "GET", case["path"]) == case["signed_string"]
    answer = case["example_response"]
    assert envelope.verify_mac(VECTORS["sync_secret"], answer["conf"], answer["signature"])
    assert not envelope.verify_mac(VECTORS["sync_secret"], answer["conf"] + " ", answer["signature"])


def test_every_request_is_fresh() -> None:
    made = [Ephemeral.generate() for _ in range(50)]
    assert len({bytes(fresh.box_key) for fresh in made}) == 50
    assert len({fresh.box_nonce for fresh in made}) == 50
    assert len({fresh.auth_nonce for fresh in made}) == 50
    assert all(len(fresh.auth_nonce) == 32 and fresh.auth_nonce.isalnum() for fresh in made)


def test_nothing_secret_is_shown() -> None:
    sealed = envelope.seal(
        identity(), Ephemeral.generate(), "POST", "/key/wg/a/b/c", {"password": "271828"}, 1, device=False
    )
    for shown in (repr(identity()), repr(sealed), repr(Ephemeral.generate())):
        assert VECTORS["sync_secret"] not in shown
        assert VECTORS["sync_token"] not in shown
        assert "PrivateKey" not in shown
        assert "271828" not in shown


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
KEYS = [*json.loads(VECTORS["connect"]["example_response_plaintext"])["configuration"]]


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), json_values, max_size=3))
def test_a_malformed_configuration_is_refused_in_one_way(changes: dict[str, Any]) -> None:
    """Whatever comes out of the box, it is either a checked configuration or a InvalidResponse."""
    good = json.loads(VECTORS["connect"]["example_response_plaintext"])
    try:
        reply = read_connect(good | {"configuration": good["configuration"] | changes})
    except InvalidResponse:
        return
    assert isinstance(reply, Allowed)
    assert len(base64.b64decode(reply.configuration.public_key)) == 32
    assert 1 <= reply.configuration.port <= 65535
    assert all("/" in address for address in reply.configuration.addresses)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_bad_answer(raw: bytes) -> None:
    try:
        assert isinstance(envelope.json_object(raw), dict)
    except InvalidResponse:
        return


def test_the_servers_key_of_the_vectors_is_the_one_used() -> None:
    assert base64.b64encode(bytes(BOX.public_key)).decode() == VECTORS["server_box_public_key"]
    assert hashlib.sha512(b"").digest_size == 64
