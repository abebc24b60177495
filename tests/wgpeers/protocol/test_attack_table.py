"""Every field of a request flipped, dropped, emptied and swapped, by attackers who hold none, one or two of the three
keys: refused with the right status, and nothing has changed."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from nacl.public import PrivateKey

from tests.attack import (
    at_server,
    connect,
    flip,
    hire_with_own_key,
    pinged,
    resign,
    resign_rsa,
    second_server,
    turn,
    unchanged,
)
from tests.conftest import Clock
from tests.factories import Company, HostStandIn
from tests.protocol_client import NOW, ClientRequest, Identity, b64, device_signed, make_request, open_answer, plaintext
from users.models import Organization
from wgpeers.lifecycle import liveness
from wgpeers.lifecycle.keepalive import keepalive
from wgpeers.models import Connection

DROPPED = object()
ERRORS = {
    400: {"malformed", "invalid_key"},
    401: {"unauthorized"},
    408: {"clock"},
    409: {"replayed", "key_spent"},
    413: {"too_large"},
}


def refused(request: ClientRequest, status: int, host: HostStandIn | None = None) -> None:
    """``request`` gets ``status`` with a short JSON error, and changes nothing."""
    with unchanged(host):
        response = request.send()
    assert response.status_code == status, response.content
    assert response.json()["error"] in ERRORS[status]
    assert len(response.content) < 200


def changed(request: ClientRequest, host_part: str, name: str, change: Callable[[str], Any]) -> ClientRequest:
    """``request`` with one of its parts ("headers" or "body") changed; DROPPED takes it out."""
    fields: dict[str, Any] = dict(request.headers if host_part == "headers" else request.body)
    value = change(fields[name])
    if value is DROPPED:
        del fields[name]
    else:
        fields[name] = value
    if host_part == "headers":
        return dataclasses.replace(request, headers=fields)
    return dataclasses.replace(request, body=fields)


def test_untouched_requests_are_allowed(company: Company, host: HostStandIn) -> None:
    """Without this the refusals below would prove nothing."""
    _, alice = company.hire("alice")
    for request in (make_request(alice), device_signed(alice)):
        response = request.send()
        assert open_answer(response.json(), alice, request.box_private_key)["allow"] is True


CHANGES: dict[str, Callable[[str], Any]] = {
    "one bit": flip,
    "one character": turn,
    "dropped": lambda _: DROPPED,
    "emptied": lambda _: "",
    "null": lambda _: None,
    "a number": lambda _: 7,
    "a list": lambda text: [text],
    "not ASCII": lambda text: "é" + text,
    "a stray character": lambda text: "!" + text,
    "with a line end": lambda text: text + "\n",
}
BODY = ("data", "nonce", "public_key", "signature", "device_signature")
NOT_TEXT = {"dropped", "null", "a number", "a list", "not ASCII"}


# A refused request changes nothing, so that all cases of one test can share one company.


@pytest.mark.parametrize("field", BODY)
def test_a_body_field_changed_by_who_holds_no_key(company: Company, host: HostStandIn, field: str) -> None:
    _, alice = company.hire("alice")
    for name, change in CHANGES.items():
        absent = field == "device_signature" and name in {"dropped", "null"}  # it may be absent, but was signed
        request = changed(device_signed(alice), "body", field, change)
        refused(request, 400 if name in NOT_TEXT and not absent else 401, host)


@pytest.mark.parametrize("field", ["data", "nonce", "public_key"])
def test_a_body_field_changed_by_who_holds_sync_secret(company: Company, host: HostStandIn, field: str) -> None:
    """The HMAC is right again; RSA, which comes before the form of what it signs, must refuse."""
    _, alice = company.hire("alice")
    for name in ("one bit", "one character", "emptied", "a stray character", "with a line end"):
        refused(resign(alice, changed(make_request(alice), "body", field, CHANGES[name])), 401, host)


def test_a_signature_changed_by_who_holds_sync_secret(company: Company, host: HostStandIn) -> None:
    _, alice = company.hire("alice")
    for field, change, status in [
        ("signature", "one bit", 401),
        ("signature", "one character", 401),
        ("signature", "emptied", 401),
        ("signature", "a stray character", 400),
        ("signature", "with a line end", 400),
        ("device_signature", "one bit", 401),
        ("device_signature", "a stray character", 400),
    ]:
        refused(resign(alice, changed(device_signed(alice), "body", field, CHANGES[change])), status, host)


def test_a_body_field_changed_by_who_holds_sync_secret_and_the_rsa_key(company: Company, host: HostStandIn) -> None:
    _, alice = company.hire("alice")
    for field, change, status in [
        ("data", "one bit", 401),
        ("data", "one character", 401),
        ("data", "emptied", 401),
        ("data", "a stray character", 400),
        ("nonce", "one bit", 401),
        ("nonce", "emptied", 400),
        ("nonce", "with a line end", 400),
        ("public_key", "one bit", 401),
        ("public_key", "emptied", 400),
        ("public_key", "a stray character", 400),
    ]:
        refused(resign_rsa(alice, changed(make_request(alice), "body", field, CHANGES[change])), status, host)


def test_a_box_key_of_low_order_is_refused(company: Company, host: HostStandIn) -> None:
    """With such a point everybody knows the shared key of the box, whatever the server's key is."""
    _, alice = company.hire("alice")
    for point in (bytes(32), b"\1" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"):
        request = make_request(alice)
        request.body["public_key"] = b64(point)
        refused(resign_rsa(alice, request), 401, host)


@pytest.mark.parametrize(
    ("header", "statuses"),
    [
        ("Auth-Token", {"one character": 401, "emptied": 401, "dropped": 401, "not ASCII": 401}),
        ("Auth-Timestamp", {"one character": 400, "emptied": 400, "dropped": 400}),
        ("Auth-Nonce", {"one character": 401, "emptied": 400, "dropped": 400, "a stray character": 400}),
        ("Auth-Signature", {"one bit": 401, "one character": 401, "emptied": 401, "dropped": 401, "not ASCII": 401}),
    ],
)
def test_a_header_changed(company: Company, host: HostStandIn, header: str, statuses: dict[str, int]) -> None:
    _, alice = company.hire("alice")
    for change, status in statuses.items():
        refused(changed(make_request(alice), "headers", header, CHANGES[change]), status, host)


def test_another_timestamp_header(company: Company, host: HostStandIn) -> None:
    _, alice = company.hire("alice")
    arabic = "\u0661" * 10  # int() would take these digits
    forms = [f"0{NOW}", f"+{NOW}", f"-{NOW}", f"{NOW}.0", f" {NOW}", "1e9", "9" * 13, "9" * 5000, arabic, "NaN"]
    for timestamp, status in [(str(NOW + 1), 401), *((form, 400) for form in forms)]:
        request = make_request(alice)
        request.headers["Auth-Timestamp"] = timestamp
        refused(request, status, host)


def test_another_method_is_another_request(company: Company, host: HostStandIn) -> None:
    _, alice = company.hire("alice")
    for asked, sent in (("POST", "PUT"), ("PUT", "POST")):
        refused(dataclasses.replace(make_request(alice, method=asked), method=sent), 401, host)


def test_another_kind_is_another_request(company: Company, host: HostStandIn) -> None:
    _, alice = company.hire("alice")
    request = make_request(alice)
    refused(dataclasses.replace(request, path=request.path.replace("/wg/", "/wg_wait/")), 401, host)


def test_ids_of_the_path_swapped(company: Company, host: HostStandIn) -> None:
    """Alice's request at another's path, also with a right HMAC by Alice's own secret."""
    _, alice = company.hire("alice")
    bob, _ = company.hire("bob")
    other = {
        "organization": Organization.objects.create(name="Other").public_id,
        "user": bob.public_id,
        "server": second_server(company).public_id,
    }
    for position, value in other.items():
        request = make_request(alice)
        request = dataclasses.replace(request, path=request.path.replace(getattr(alice, position), value))
        refused(request, 401, host)
        refused(resign(alice, request), 401, host)


def test_another_users_token_with_ones_own_secret(company: Company, host: HostStandIn) -> None:
    _, alice = company.hire("alice")
    _, bob = company.hire("bob")
    refused(make_request(dataclasses.replace(alice, token=bob.token)), 401, host)
    refused(make_request(dataclasses.replace(bob, token=alice.token, user=alice.user)), 401, host)


def test_a_recorded_body_under_another_users_keys(company: Company, host: HostStandIn) -> None:
    """Bob wraps what he recorded of Alice as his own: his RSA key did not sign it."""
    _, alice = company.hire("alice")
    _, bob = hire_with_own_key(company, "bob")
    recorded = make_request(alice)
    recorded.path = make_request(bob).path
    refused(resign(bob, recorded), 401, host)


def test_a_recorded_body_at_another_server(company: Company, host: HostStandIn) -> None:
    """Neither the HMAC of the body nor RSA names the server, but the box is for one server's key."""
    _, alice = company.hire("alice")
    there = at_server(alice, second_server(company))
    recorded = make_request(alice)
    recorded.path = make_request(there).path
    refused(resign(there, recorded), 401, host)
    assert connect(there)[1]["allow"] is True


def test_a_part_of_another_request_of_the_same_user(company: Company, host: HostStandIn) -> None:
    _, alice = company.hire("alice")
    for field in ("data", "nonce", "public_key", "signature"):
        one, two = make_request(alice), make_request(alice)
        one.body[field] = two.body[field]
        refused(one, 401, host)
        refused(resign(alice, one), 401, host)
    for header in ("Auth-Timestamp", "Auth-Nonce", "Auth-Signature"):
        one, two = make_request(alice), make_request(alice, now=NOW + 5)
        one.headers[header] = two.headers[header]
        refused(one, 401, host)


def test_fields_joined_another_way(company: Company, host: HostStandIn) -> None:
    """The signed text is the same if an ampersand moves from between two fields into one of them."""
    _, alice = company.hire("alice")
    request = make_request(alice)
    data, nonce = request.body["data"], request.body["nonce"]
    request.body |= {"data": f"{data}&{nonce}", "nonce": request.body["public_key"], "public_key": "", "signature": ""}
    refused(request, 401, host)
    request = device_signed(alice)
    request.body["signature"] += "&" + request.body["device_signature"]
    request.body["device_signature"] = ""
    refused(request, 400, host)


# Each of the three proofs lacking alone.


def test_all_but_sync_secret(company: Company, host: HostStandIn) -> None:
    _, alice = company.hire("alice")
    refused(make_request(dataclasses.replace(alice, secret="a" * 32)), 401, host)


def test_all_but_the_rsa_key(company: Company, host: HostStandIn) -> None:
    _, alice = company.hire("alice")
    _, bob = hire_with_own_key(company, "bob")
    refused(make_request(dataclasses.replace(alice, key=bob.key)), 401, host)
    unsigned = make_request(alice)
    unsigned.body["signature"] = make_request(alice).body["signature"]
    refused(resign(alice, unsigned), 401, host)


def test_all_but_the_servers_box_key(company: Company, host: HostStandIn) -> None:
    _, alice = company.hire("alice")
    another = b64(bytes(PrivateKey.generate().public_key))
    refused(make_request(dataclasses.replace(alice, box_public_key=another)), 401, host)


def test_a_box_changed_by_who_can_sign_but_not_seal(company: Company, host: HostStandIn) -> None:
    """The stream under a box is an XOR: a known plaintext could be made another, did its authenticator not hold."""
    _, alice = company.hire("alice")
    refused(with_another_wg_key(alice, make_request(alice, plaintext(wg_public_key=OLD_KEY))), 401, host)


OLD_KEY, NEW_KEY = (b64(bytes(PrivateKey(bytes([number]) * 32).public_key)) for number in (1, 2))


def with_another_wg_key(identity: Identity, request: ClientRequest) -> ClientRequest:
    """OLD_KEY made NEW_KEY within the closed box, wherever it is, and everything signed anew."""
    raw = bytearray(base64.b64decode(request.body["data"]))
    template = plaintext(wg_public_key=OLD_KEY)
    place = 16 + json.dumps(template).index(OLD_KEY)
    for index, (old, new) in enumerate(zip(OLD_KEY.encode(), NEW_KEY.encode(), strict=True)):
        raw[place + index] ^= old ^ new
    request.body["data"] = b64(bytes(raw))
    return resign_rsa(identity, request)


# Requests of another time, and of another purpose.


def test_a_replay_is_refused_within_the_window_and_after_it(
    company: Company, host: HostStandIn, fixed_clock: Clock
) -> None:
    _, alice = company.hire("alice")
    request, _ = connect(alice)
    refused(request, 409, host)
    fixed_clock.advance(601)
    refused(request, 408, host)


def test_an_old_box_wrapped_anew_by_who_holds_sync_secret(
    company: Company, host: HostStandIn, fixed_clock: Clock
) -> None:
    _, alice = company.hire("alice")
    unused = make_request(alice)  # recorded, and held back from the server
    now = int(fixed_clock.advance(601))
    refused(resign(alice, unused, now), 408, host)


def test_a_recorded_ping_wrapped_as_a_connect_by_who_holds_sync_secret(company: Company, host: HostStandIn) -> None:
    """RSA and box cover neither method nor path; but the WireGuard key in it is spent."""
    _, alice = company.hire("alice")
    _, answer = connect(alice, wg_public_key=NEW_KEY)
    assert answer["allow"] is True
    recorded = make_request(alice, plaintext(wg_public_key=NEW_KEY), method="PUT")
    assert recorded.send().status_code == 200
    refused(resign(alice, dataclasses.replace(recorded, method="POST")), 409, host)


def test_a_recorded_connect_wrapped_as_a_ping_by_who_holds_sync_secret(
    company: Company, host: HostStandIn, fixed_clock: Clock
) -> None:
    """It counts as one ping at most, and as none once the client has pinged."""
    _, alice = company.hire("alice")
    recorded, _ = connect(alice, wg_public_key=NEW_KEY)
    now = int(fixed_clock.advance(10))
    assert pinged(alice, NEW_KEY, now=now)
    keepalive.write()
    before = liveness.deadlines(_connections())
    now = int(fixed_clock.advance(100))
    assert resign(alice, dataclasses.replace(recorded, method="PUT"), now).send().status_code == 200
    keepalive.write()
    assert liveness.deadlines(_connections()) == before


def _connections() -> list[str]:
    return list(Connection.objects.values_list("public_id", flat=True))
