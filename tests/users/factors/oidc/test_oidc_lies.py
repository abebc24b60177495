"""What a provider, or somebody in its place, can say that must let nobody in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from tests.conftest import Clock
from tests.factories import Company
from tests.protocol_client import NOW
from users.factors.oidc import discovery
from wgpeers.models import Decision

from .attempts import Visit
from .liar import SECRET, Liar, unsigned

STRANGER = RSAKey.generate_key(2048, {"kid": "k1"})


def outcome(visit: Visit, liar: Liar, **claims: Any) -> str:
    """The code with which a connect is refused after this sign-in, or "allowed"."""
    visit.connect()
    visit.come_back(liar.sign_in(visit.press(), **claims))
    visit.wait()
    return Decision.objects.latest("pk").code


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"}, {"iss": None}, {"iss": ["x"]},
        {"aud": "another"}, {"aud": []}, {"aud": None}, {"aud": ["another"]}, {"aud": ["vpn client", "another"]},
        {"aud": ["vpn client", "another"], "azp": "another"}, {"azp": "another"},
        {"exp": int(NOW) - 61}, {"exp": None}, {"exp": "soon"}, {"exp": True}, {"exp": 1e300},
        {"iat": int(NOW) + 61}, {"iat": int(NOW) - 601}, {"iat": None},
        {"nonce": None}, {"nonce": "of another sign-in"}, {"nonce": ""}, {"nonce": 1},
        {"sub": None}, {"sub": ""}, {"sub": 7}, {"sub": "x" * 256},
    ],
)  # fmt: skip
def test_claims_that_are_wrong(visit: Visit, liar: Liar, claims: dict[str, Any]) -> None:
    assert outcome(visit, liar, **claims) == "oidc_bad_answer"


def test_several_audiences_and_ours_is_the_party(visit: Visit, liar: Liar) -> None:
    assert outcome(visit, liar, aud=["vpn client", "another"], azp="vpn client") == "allowed"


FORGERIES: dict[str, Callable[[Liar, dict[str, Any]], str]] = {
    "unsigned": lambda liar, claims: unsigned(claims),
    "signed by a stranger": lambda liar, claims: jwt.encode({"alg": "RS256", "kid": "k1"}, claims, STRANGER),
    "signed with our secret": lambda liar, claims: jwt.encode(
        {"alg": "HS256", "kid": "k1"}, claims, OctKey.import_key(SECRET.encode().ljust(32, b"x"))
    ),
    "signed with the public key as a secret": lambda liar, claims: jwt.encode(
        {"alg": "HS256", "kid": "k1"}, claims, OctKey.import_key(str(liar.key.as_dict(private=False)["n"]))
    ),
    "key in the header": lambda liar, claims: jwt.encode(
        {"alg": "RS256", "jwk": STRANGER.as_dict(private=False)}, claims, STRANGER
    ),
    "changed": lambda liar, claims: jwt.encode({"alg": "RS256", "kid": "k1"}, claims, liar.key)[:-6] + 6 * "A",
    "no token": lambda liar, claims: "",
    "two parts": lambda liar, claims: "a.b",
    "huge": lambda liar, claims: "a" * 70000,
}  # fmt: skip


@pytest.mark.parametrize("how", FORGERIES)
def test_tokens_that_are_forged(visit: Visit, liar: Liar, how: str) -> None:
    liar.forge = lambda claims: FORGERIES[how](liar, claims)
    assert outcome(visit, liar) == "oidc_bad_answer"


def test_a_new_key_is_fetched_once(company: Company, visit: Visit, liar: Liar, fixed_clock: Clock) -> None:
    assert outcome(visit, liar) == "allowed"
    liar.key = RSAKey.generate_key(2048, {"kid": "k2", "use": "sig"})
    fixed_clock.advance(discovery.PAUSE + 1)
    for name in ("bob", "carol"):
        other = Visit(company.hire(name, email=f"{name}@acme.example")[1])
        assert outcome(other, liar, email=f"{name}@acme.example", sub=f"sub-{name}") == "allowed"
    assert liar.fetched.count("/keys") == 2


def test_made_up_names_of_keys_do_not_have_us_ask_at_each(visit: Visit, liar: Liar, fixed_clock: Clock) -> None:
    assert outcome(visit, liar) == "allowed"
    liar.forge = lambda claims: jwt.encode({"alg": "RS256", "kid": f"made-up-{claims['nonce']}"}, claims, STRANGER)
    fixed_clock.advance(discovery.PAUSE + 1)
    for _ in range(4):
        assert outcome(Visit(visit.identity), liar) == "oidc_bad_answer"
    assert liar.fetched.count("/keys") == 2


@pytest.mark.parametrize("error", ["access_denied", "<script>alert(1)</script>"])
def test_a_providers_error_is_never_shown(visit: Visit, liar: Liar, error: str) -> None:
    visit.connect()
    state = liar.sign_in(visit.press()).partition("&state=")[2]
    said = visit.browser.get("/sso/back", {"state": state, "error": error, "error_description": error}, follow=True)
    assert error not in said.content.decode()
    visit.wait()
    assert Decision.objects.latest("pk").code == "oidc_declined"


def test_the_answer_of_another_provider_is_not_mixed_up(visit: Visit, liar: Liar) -> None:
    visit.connect()
    visit.come_back(liar.sign_in(visit.press()) + "&iss=https://evil.example")
    visit.wait()
    assert Decision.objects.latest("pk").code == "oidc_bad_answer"


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": None},
        {"token_endpoint": 7},
    ],
)
def test_metadata_that_cannot_be_used(visit: Visit, liar: Liar, metadata: dict[str, Any]) -> None:
    liar.metadata = metadata
    visit.connect()
    assert Decision.objects.latest("pk").code == "oidc_unavailable"


def test_keys_inside_of_another_host_are_not_fetched(visit: Visit, liar: Liar) -> None:
    liar.metadata = {"jwks_uri": liar.url.replace("localhost", "127.0.0.1") + "/keys"}
    visit.connect()
    assert "Not right now" in visit.come_back(liar.sign_in(visit.press()))
    assert "/keys" not in liar.fetched
