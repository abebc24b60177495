"""Whatever comes, it is answered with a short refusal and changes nothing; and never is it taken for our fault."""

from __future__ import annotations

import gzip
import io
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.test import Client
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.attack import resign, snapshot, unchanged
from tests.factories import Company, HostStandIn
from tests.protocol_client import NOW, ClientRequest, Identity, b64, make_request, plaintext, sign_headers
from wgpeers.models import Decision
from wgpeers.protocol.envelope import BODY_FIELDS, MAX_BODY, SHOWN_FIELDS, TEXT_FIELDS

FUZZ = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
# Lone surrogates, NUL and every script included.
TEXT = st.text(st.characters(codec=None), max_size=300)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(10**300, 10**301) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture
def alice(company: Company) -> Identity:
    return company.hire("alice")[1]


def meta(request: ClientRequest) -> dict[str, str]:
    return {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in request.headers.items()}


def refused(response: Any, *statuses: int) -> None:
    assert 400 <= response.status_code < 500, (response.status_code, response.content)
    assert not statuses or response.status_code in statuses, (response.status_code, response.content)
    answer = response.json()
    assert answer["error"].isidentifier()
    assert len(response.content) < 300


def send(request: ClientRequest, body: bytes, content_type: str = "application/json", **extra: Any) -> Any:
    headers: dict[str, Any] = meta(request)
    return Client().generic(request.method, request.path, body, content_type, **headers, **extra)


@FUZZ
@given(
    field=st.sampled_from(BODY_FIELDS), value=JSON, sealed_anew=st.booleans(), method=st.sampled_from(["POST", "PUT"])
)
def test_any_value_in_a_body_field(
    alice: Identity, host: HostStandIn, field: str, value: Any, sealed_anew: bool, method: str
) -> None:
    request = make_request(alice, method=method)
    assume(value != request.body[field] and not (field == "device_signature" and value is None))
    request.body[field] = value
    if sealed_anew and (not isinstance(value, str) or value.isascii()):
        request = resign(alice, request)
    # An empty device signature is none; a client without a device key has none.
    with unchanged(host):
        refused(send(request, json.dumps(request.body).encode()))


@FUZZ
@given(body=st.binary(max_size=400) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_for_a_body(alice: Identity, host: HostStandIn, body: bytes) -> None:
    with unchanged(host):
        refused(send(make_request(alice), body), 400, 401)


@FUZZ
@given(place=st.integers(0, 5000), byte=st.integers(0, 255), cut=st.booleans())
def test_any_byte_of_a_body_changed_or_everything_after_it_lost(
    alice: Identity, host: HostStandIn, place: int, byte: int, cut: bool
) -> None:
    request = make_request(alice)
    body = json.dumps(request.body, separators=(",", ":")).encode()
    place %= len(body)
    broken = body[:place] if cut else body[:place] + bytes([byte]) + body[place + 1 :]
    try:
        assume(json.loads(broken) != request.body)
        # An optional field by another name is a request without it, which the HMAC does not cover: the same request.
        assume({k: v for k, v in json.loads(broken).items() if k in BODY_FIELDS and v} != _given(request.body))
    except (ValueError, AttributeError):
        pass
    with unchanged(host):
        refused(send(request, broken), 400, 401)


def _given(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value}


LATIN = st.text(st.characters(max_codepoint=255), max_size=80)
HEADERS = ("Auth-Token", "Auth-Timestamp", "Auth-Nonce", "Auth-Signature")


@FUZZ
@given(
    header=st.sampled_from(HEADERS),
    value=LATIN | TEXT | st.integers().map(str),
    method=st.sampled_from(["POST", "PUT"]),
)
def test_any_text_in_a_header(alice: Identity, host: HostStandIn, header: str, value: str, method: str) -> None:
    request = make_request(alice, method=method)
    assume(request.headers[header] != value)
    request.headers[header] = value
    with unchanged(host):
        refused(request.send(), 400, 401)


@FUZZ
@given(
    agent=LATIN,
    accept=LATIN,
    kind=st.sampled_from(["", "text/xml", "multipart/form-data", "application/x-www-form-urlencoded", "a;b;c=\x00"]),
    encoding=LATIN,
    host_name=LATIN,
    cookie=LATIN,
    query=LATIN,
)
def test_headers_that_are_not_ours_do_not_matter(
    alice: Identity, agent: str, accept: str, kind: str, encoding: str, host_name: str, cookie: str, query: str
) -> None:
    """Neither to a refusal nor to a right ping, which is answered whatever stands there."""
    extra = {
        "HTTP_USER_AGENT": agent,
        "HTTP_ACCEPT": accept,
        "HTTP_CONTENT_ENCODING": encoding,
        "HTTP_HOST": host_name,
        "HTTP_COOKIE": cookie,
        "HTTP_X_FORWARDED_FOR": agent,
        "HTTP_X_HTTP_METHOD_OVERRIDE": "DELETE",
        "HTTP_ORIGIN": cookie,
        "QUERY_STRING": query,
    }
    right, wrong = make_request(alice, method="PUT"), make_request(alice, method="PUT")
    wrong.headers["Auth-Signature"] = "AAAA"
    assert send(right, json.dumps(right.body).encode(), kind, **extra).status_code == 200
    refused(send(wrong, json.dumps(wrong.body).encode(), kind, **extra), 401)


WRONG_SHAPE = st.one_of(
    JSON.filter(lambda value: not isinstance(value, dict)).map(lambda v: json.dumps(v).encode()), st.binary()
)


@FUZZ
@given(opened=WRONG_SHAPE, method=st.sampled_from(["POST", "PUT"]))
def test_a_plaintext_that_is_no_json_object(alice: Identity, host: HostStandIn, opened: bytes, method: str) -> None:
    with unchanged(host):
        refused(make_request(alice, opened or b"[]", method=method).send(), 400)


def unfit(name: str, value: Any) -> bool:
    """Whether a plaintext must be refused for ``value`` in ``name``."""
    if name == "timestamp":
        return type(value) is not int or not 0 <= value < 10**12
    if not isinstance(value, str):
        return value is not None
    if name in SHOWN_FIELDS:
        return False  # cut to what can be shown
    return len(value) > TEXT_FIELDS[name] or not value.isprintable()


@FUZZ
@given(name=st.sampled_from([*TEXT_FIELDS, "timestamp"]), value=JSON)
def test_an_unfit_value_in_the_plaintext(alice: Identity, host: HostStandIn, name: str, value: Any) -> None:
    assume(unfit(name, value))
    with unchanged(host):
        refused(make_request(alice, plaintext() | {name: value}).send(), 400)


@FUZZ
@given(name=st.sampled_from([*TEXT_FIELDS, "nothing we know"]), value=JSON)
def test_any_value_in_the_plaintext_never_is_our_fault(
    alice: Identity, host: HostStandIn, name: str, value: Any
) -> None:
    before = snapshot()
    response = make_request(alice, plaintext() | {name: value}).send()
    assert response.status_code < 500, response.content
    if response.status_code != 200:
        refused(response, 400, 401)
        assert snapshot() == before


HOSTILE = [
    b"",
    b"{",
    b"null",
    b"[]" * 10,
    b"[" * 60000,
    b'{"data":' * 6000,
    b'{"data": NaN, "nonce": Infinity}',
    b'{"data": ' + b"9" * 50000 + b"}",
    b'{"data": 1e999}',
    b"\xff\xfe\xfd",
    b'{"data": "\\ud800"}',
    b'{"data": "\\u0000"}',
    '{"data": "٣"}'.encode(),
    "{}".encode("utf-16"),
    gzip.compress(b"{}"),
]


def test_hostile_bodies(alice: Identity, host: HostStandIn) -> None:
    for body in HOSTILE:
        with unchanged(host):
            for method in ("POST", "PUT"):
                refused(send(make_request(alice, method=method), body), 400)


def test_the_last_of_two_fields_of_one_name_is_the_one_that_is_signed_and_read(
    alice: Identity, host: HostStandIn
) -> None:
    request = make_request(alice)
    right = json.dumps(request.body)
    with unchanged(host):
        refused(send(request, (right[:-1] + ', "data": "AAAA"}').encode()), 401)
    assert send(request, ('{"data": "AAAA", ' + right[1:]).encode()).status_code == 200


def test_a_body_over_the_limit_is_refused_without_being_read(alice: Identity, host: HostStandIn) -> None:
    padding = b" " * MAX_BODY
    request = make_request(alice)
    body = json.dumps(request.body).encode()
    with unchanged(host):
        refused(send(request, body + padding), 413)
        refused(send(request, b"x" * 10_000_000), 413)
    assert send(request, body + padding[len(body) :]).status_code == 200  # exactly the limit


def test_a_content_length_that_lies(alice: Identity) -> None:
    with unchanged():
        for length in ("", "0", "-1", "abc", "9" * 30):
            extra: dict[str, Any] = {"CONTENT_LENGTH": length, "wsgi.input": io.BytesIO(b"")}
            refused(send(make_request(alice), b"", **extra), 400)


NO_PATHS = [
    *("/key/", "/key/wg", "/key/wg/a/b", "/key/wg/a/b/c/d", "/key/wg/a/b/c/", "/key//wg/a/b/c", "/key/wg/../b/c"),
    *(
        "/key/wg/a%00/b/c",
        "/key/wg/a/b/c%0A",
        "/key/wg/%D9%A1/b/c",
        "/key/sync/a/b/c",
        "/key/sync/a/b/c/" + "d" * 129,
    ),
    *("/key/" + "a" * 65 + ".tar", "/key/a.rar", "/ku/", "/k/a-b"),
]


def test_a_path_that_is_none_of_ours(company: Company) -> None:
    with unchanged():
        for path in NO_PATHS:
            for method in ("GET", "POST", "PUT"):
                refused(Client().generic(method, path), 404)


def test_a_method_that_is_none_of_ours(alice: Identity) -> None:
    ids = f"{alice.organization}/{alice.user}/{alice.server}"
    with unchanged():
        for method in ("HEAD", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "NONSENSE"):
            for kind in ("wg", "wg_wait"):
                assert Client().generic(method, f"/key/{kind}/{ids}").status_code == 405, method
            response = Client().generic(method, f"/key/sync/{ids}/abc")
            assert response.status_code == (401 if method == "HEAD" else 405), method


def test_any_bit_of_a_device_key_changed(alice: Identity, host: HostStandIn) -> None:
    """Among them keys of other kinds, of other curves, and of algorithms that nobody has."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    right = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    with unchanged(host):
        for place in range(40):
            wrong = right[:place] + bytes([right[place] ^ 1]) + right[place + 1 :]
            request = make_request(alice, plaintext(device_key=b64(wrong).rstrip("=")))
            request.body["device_signature"] = "AAAA"
            refused(resign(alice, request).send(), 400, 401)


def test_decisions_hold_no_secret(alice: Identity, host: HostStandIn) -> None:
    secrets = {"password": "1234-secret", "token": "token-secret"}
    request = make_request(alice, plaintext(**secrets))
    assert request.send().status_code == 200
    request.body["signature"] = "AAAA"
    request.headers = sign_headers(alice, "POST", request.path, request.body, NOW)
    assert request.send().status_code == 401
    rows = str(list(Decision.objects.values()))
    assert Decision.objects.count() == 2
    for secret in (*secrets.values(), alice.token, alice.secret, request.body["data"]):
        assert secret not in rows
