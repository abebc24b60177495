"""What each check is for: with it the attack is refused, and with that one check taken out of the code the very same
attack succeeds. So the refusals that other tests see are the work of these checks and of no other."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

import pytest
from nacl.public import Box

from core.crypto import decrypt
from tests.attack import hire_with_own_key, resign, unchanged
from tests.conftest import Clock
from tests.factories import Company, HostStandIn
from tests.protocol_client import NOW, ClientRequest, Identity, make_request, open_answer, plaintext
from wgpeers.lifecycle import queries
from wgpeers.models import Connection, State
from wgpeers.protocol import envelope

from .test_attack_table import NEW_KEY, OLD_KEY, with_another_wg_key


def refused_then_allowed(request: ClientRequest, status: int, host: HostStandIn, mutation: Any) -> None:
    """``mutation()`` takes the check out."""
    with unchanged(host):
        assert request.send().status_code == status
    mutation()
    # The refused attempt has used up its nonce; a new one by the same hand costs the attacker nothing.
    response = request.send()
    assert response.status_code == 200, response.content
    assert Connection.objects.filter(state=State.OPEN).count() == 1


@pytest.fixture
def alice(company: Company) -> Identity:
    return company.hire("alice")[1]


def forget_nonces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "check_nonce", lambda *_: None)


def test_check_hmac(alice: Identity, host: HostStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    thief = make_request(dataclasses.replace(alice, secret="guessed"))  # holds the RSA key, not sync_secret
    refused_then_allowed(
        thief, 401, host, lambda: monkeypatch.setattr(envelope, "check_hmac", lambda request, credentials: None)
    )


def test_check_rsa(company: Company, alice: Identity, host: HostStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    _, bob = hire_with_own_key(company, "bob")
    thief = make_request(dataclasses.replace(alice, key=bob.key))  # holds sync_secret, not the RSA key

    def mutation() -> None:
        forget_nonces(monkeypatch)
        monkeypatch.setattr(envelope, "check_rsa", lambda request, credentials: None)

    refused_then_allowed(thief, 401, host, mutation)


def test_authenticity_of_the_box(alice: Identity, host: HostStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thief can sign but not seal, and knows what was in the box he alters."""
    recorded = make_request(alice, plaintext(wg_public_key=OLD_KEY))
    thief = with_another_wg_key(alice, recorded)

    class Careless(Box):
        def decrypt(self, ciphertext: bytes, nonce: bytes | None = None, *_: Any) -> bytes:
            # The stream is an XOR: to encrypt the ciphertext is to decrypt it, without looking at its authenticator.
            return self.encrypt(ciphertext[16:], nonce).ciphertext[16:]

    def mutation() -> None:
        forget_nonces(monkeypatch)
        monkeypatch.setattr(envelope, "Box", Careless)
        envelope._agreed.cache_clear()
        envelope._agreed.cache_clear()

    refused_then_allowed(thief, 401, host, mutation)
    assert Connection.objects.get().wg_public_key == NEW_KEY


def test_clock_of_the_header(
    alice: Identity, host: HostStandIn, fixed_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_back = make_request(alice, plaintext(timestamp=NOW + 601), now=NOW)  # by a client whose clocks disagree
    now = fixed_clock.advance(601)
    real = envelope.check_clock

    def mutation() -> None:
        monkeypatch.setattr(envelope, "check_clock", lambda time, *rest: None if time == NOW else real(time, *rest))

    assert now == NOW + 601
    refused_then_allowed(held_back, 408, host, mutation)


def test_clock_of_the_plaintext(
    alice: Identity, host: HostStandIn, fixed_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_back = make_request(alice)
    thief = resign(alice, held_back, int(fixed_clock.advance(601)))  # holds sync_secret and a recording
    real = envelope.check_clock

    def mutation() -> None:
        forget_nonces(monkeypatch)
        monkeypatch.setattr(envelope, "check_clock", lambda time, *rest: None if time == NOW else real(time, *rest))

    refused_then_allowed(thief, 408, host, mutation)


def test_check_nonce(alice: Identity, host: HostStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connect that failed for no fault of its own (its host was away) left its key unspent: whoever recorded it
    must not be able to play it again, in the client's place, when the host is back."""
    host.answer = "error: not now"
    recorded = make_request(alice)
    assert recorded.send().status_code == 503
    host.answer = "ok"
    refused_then_allowed(recorded, 409, host, lambda: forget_nonces(monkeypatch))


def test_spent_keys(alice: Identity, host: HostStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database's own constraint is the check: nothing but the row of the first use stands in the way."""
    key = plaintext()["wg_public_key"]
    assert make_request(alice, plaintext(wg_public_key=key)).send().status_code == 200
    again = plaintext(wg_public_key=key, device_id="another")
    with unchanged(host):
        assert make_request(alice, again).send().status_code == 409
    monkeypatch.setattr(queries, "insert_spent_key", lambda *_: None)
    assert make_request(alice, again).send().status_code == 200


def test_low_order_box_keys(alice: Identity, host: HostStandIn) -> None:
    """The box library itself refuses them, which is what ``envelope`` relies on: the shared key would be known."""
    from nacl.bindings import crypto_box_beforenm
    from nacl.exceptions import CryptoError

    private = base64.b64decode(decrypt(_box_private()))
    with pytest.raises(CryptoError):
        crypto_box_beforenm(bytes(32), private)


def _box_private() -> str:
    from servers.models import Server

    return Server.objects.get().box_private_key.stored


def test_the_answer_is_for_the_asker_alone(alice: Identity, host: HostStandIn) -> None:
    """A right answer does not open for another box key, nor hold under another secret."""
    request = make_request(alice)
    response = request.send().json()
    other = make_request(alice)
    with pytest.raises(Exception, match="decrypt"):
        open_answer(response, alice, other.box_private_key)
    with pytest.raises(AssertionError):
        open_answer(response, dataclasses.replace(alice, secret="another"), request.box_private_key)
