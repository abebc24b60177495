"""The clock window, of the header and of the plaintext each by itself; and how long a nonce is remembered."""

from __future__ import annotations

import dataclasses
import hmac

import pytest
from django.conf import LazySettings

from core.redis_store import redis_client
from tests.attack import resign, unchanged
from tests.conftest import Clock
from tests.factories import Company, HostStandIn
from tests.protocol_client import NOW, Identity, b64, make_request, make_sync, new_wg_key, plaintext

EDGES = [(0, 200), (600, 200), (-600, 200), (601, 408), (-601, 408), (86400, 408), (NOW, 408)]


@pytest.fixture
def alice(company: Company) -> Identity:
    return company.hire("alice")[1]


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_the_headers_timestamp(alice: Identity, host: HostStandIn, method: str) -> None:
    for behind, status in EDGES:
        response = make_request(alice, plaintext(), method=method, now=NOW - behind).send()
        assert response.status_code == status, behind


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_the_plaintexts_timestamp(alice: Identity, host: HostStandIn, method: str) -> None:
    for behind, status in EDGES:
        response = make_request(alice, plaintext(timestamp=NOW - behind), method=method).send()
        assert response.status_code == status, behind


def test_the_timestamp_of_a_sync(alice: Identity) -> None:
    for behind, status in EDGES:
        assert make_sync(alice, "a", now=NOW - behind).send().status_code == status, behind


def test_a_refused_clock_changes_nothing_and_says_by_how_much(alice: Identity, host: HostStandIn) -> None:
    with unchanged(host):
        late = make_request(alice, plaintext(), now=NOW - 700).send().json()
        early = make_request(alice, plaintext(timestamp=NOW + 800)).send().json()
    assert late == {"error": "clock", "detail": "the client's clock is 700 s behind; 600 s is the most"}
    assert "800 s ahead" in early["detail"]


def test_a_part_of_a_second_does_not_count(alice: Identity, host: HostStandIn, fixed_clock: Clock) -> None:
    fixed_clock.now = NOW + 600.9
    assert make_request(alice, plaintext(timestamp=NOW), now=NOW).send().status_code == 200


@pytest.mark.parametrize("window", [30, 600, 3600])
def test_a_nonce_is_remembered_for_longer_than_any_timestamp_with_it_is_good(
    alice: Identity, host: HostStandIn, settings: LazySettings, window: int
) -> None:
    """The most ahead that a timestamp may be, it is good for two windows."""
    settings.CLOCK_WINDOW = window
    request = make_request(alice, plaintext(timestamp=NOW + window), now=NOW + window)
    assert request.send().status_code == 200
    (key,) = redis_client().scan_iter("nonce:*")
    assert redis_client().ttl(key) > 2 * window


def test_a_nonce_is_good_once(alice: Identity, host: HostStandIn) -> None:
    for request in (make_request(alice), make_sync(alice, "a")):
        assert request.send().status_code == 200
        with unchanged(host):
            response = request.send()
        assert response.status_code == 409
        assert response.json()["error"] == "replayed"


def test_a_nonce_is_used_up_by_a_request_that_fails_later(alice: Identity, host: HostStandIn) -> None:
    """Else an attacker could try what comes after it as often as they like."""
    request = make_request(dataclasses.replace(alice, box_public_key=new_wg_key()))
    assert request.send().status_code == 401
    assert request.send().status_code == 409


def test_the_same_nonce_of_another_user_is_another_nonce(company: Company, alice: Identity, host: HostStandIn) -> None:
    _, bob = company.hire("bob")
    first, second = make_request(alice), make_request(bob)
    assert first.send().status_code == 200
    second.headers["Auth-Nonce"] = first.headers["Auth-Nonce"]
    parts = [bob.token, str(NOW), first.headers["Auth-Nonce"], "POST", second.path]
    second.headers["Auth-Signature"] = _hmac(bob, [*parts, *list(second.body.values())[:4]])
    assert second.send().status_code == 200


def _hmac(identity: Identity, parts: list[str]) -> str:
    return b64(hmac.digest(identity.secret.encode(), "&".join(parts).encode(), "sha512"))


def test_a_stranger_cannot_use_up_a_nonce(alice: Identity, host: HostStandIn) -> None:
    request = make_request(alice)
    stranger = dataclasses.replace(request, headers=request.headers | {"Auth-Signature": "AAAA"})
    assert stranger.send().status_code == 401
    assert request.send().status_code == 200


def test_an_old_box_in_a_new_envelope(alice: Identity, host: HostStandIn, fixed_clock: Clock) -> None:
    """What a holder of sync_secret alone can do with a recording: nothing, once it is out of the window."""
    recorded = make_request(alice)
    with unchanged(host):
        assert resign(alice, recorded, int(fixed_clock.advance(601))).send().status_code == 408
    fixed_clock.now = NOW
    assert recorded.send().status_code == 200
