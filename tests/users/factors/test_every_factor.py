"""The table: every factor of the registry, every case, and the decision that comes of it. A factor without its row
fails the test, and so does a row without a case."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from django.conf import LazySettings

from tests.conftest import Clock
from tests.factories import Company
from users.factors.registry import FACTORS, load
from wgpeers.lifecycle.codes import explain

from .benches import BENCHES, Bench

CASES = ("right", "wrong", "replayed", "expired", "others", "down", "slow", "lying")
# Why there is no such case.
STAYS = "no case: it is good again and again, until it is changed"
NOBODY_ELSE = "no case: nobody else is asked"
THEIRS = "no case: what expires, the server alone knows, and it says what it says of a wrong one"

TABLE = {
    "pin": ("allowed", "pin_wrong", STAYS, STAYS, "pin_wrong", NOBODY_ELSE, NOBODY_ELSE, NOBODY_ELSE),
    "totp": ("allowed", "totp_wrong", "totp_used", "totp_clock", "totp_wrong", NOBODY_ELSE, NOBODY_ELSE, NOBODY_ELSE),
    "yubikey": (
        "allowed", "yubikey_wrong", "yubikey_used", "yubikey_used", "yubikey_not_theirs", "yubikey_unavailable",
        "yubikey_unavailable", "yubikey_not_believed",
    ),
    "radius": (
        "allowed", "radius_wrong", STAYS, THEIRS, "radius_wrong", "radius_unavailable", "radius_unavailable",
        "radius_bad_answer",
    ),
    "ldap": (
        "allowed", "ldap_wrong", STAYS, "ldap_wrong", "ldap_wrong", "ldap_unavailable", "ldap_unavailable",
        "ldap_bad_certificate",
    ),
    "duo": (
        "allowed", "duo_rejected", "duo_rejected", "duo_expired", "duo_rejected", "duo_unavailable",
        "duo_unavailable", "duo_malformed",
    ),
    "duo_otp": (
        "allowed", "duo_otp_wrong", "duo_otp_wrong", "duo_otp_expired", "duo_otp_wrong", "duo_otp_unavailable",
        "duo_otp_unavailable", "duo_otp_malformed",
    ),
    "okta": (
        "allowed", "okta_rejected", "okta_rejected", "okta_expired", "okta_not_enrolled_there", "okta_unavailable",
        "okta_unavailable", "okta_malformed",
    ),
    "okta_otp": (
        "allowed", "okta_otp_wrong", "okta_otp_used", "okta_otp_wrong", "okta_otp_not_enrolled_there",
        "okta_otp_unavailable", "okta_otp_unavailable", "okta_otp_malformed",
    ),
    # Its page says that nobody can be asked, and the client waits.
    "okta_number": (
        "allowed", "okta_number_rejected", "okta_number_rejected", "okta_number_expired",
        "okta_number_not_enrolled_there", "waiting", "waiting", "waiting",
    ),
    "onelogin": (
        "allowed", "onelogin_rejected", "onelogin_rejected", "onelogin_expired", "onelogin_not_enrolled_there",
        "onelogin_unavailable", "onelogin_unavailable", "onelogin_malformed",
    ),
    "onelogin_otp": (
        "allowed", "onelogin_otp_wrong", "onelogin_otp_wrong", "onelogin_otp_wrong",
        "onelogin_otp_not_enrolled_there", "onelogin_otp_unavailable", "onelogin_otp_unavailable",
        "onelogin_otp_malformed",
    ),
    "oidc": (
        "allowed", "oidc_declined", "oidc_bad_answer", "oidc_bad_answer", "oidc_other_account", "oidc_unavailable",
        "oidc_unavailable", "oidc_bad_answer",
    ),
    "saml": (
        "allowed", "saml_declined", "saml_bad_answer", "saml_bad_answer", "saml_other_account", "waiting", "waiting",
        "saml_bad_answer",
    ),
    "passkey": (
        "allowed", "passkey_wrong", "waiting", "waiting", "passkey_unknown", NOBODY_ELSE, NOBODY_ELSE,
        "passkey_copied",
    ),
    "device": (
        "allowed", "device_unsigned", "device_other_device", "device_key_revoked", "waiting", NOBODY_ELSE,
        NOBODY_ELSE, NOBODY_ELSE,
    ),
}  # fmt: skip
ROWS = [
    (kind, case, code)
    for kind, codes in TABLE.items()
    for case, code in zip(CASES, codes, strict=True)
    if not code.startswith("no case")
]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def test_every_factor_has_its_row_and_every_row_its_cases() -> None:
    assert TABLE.keys() == BENCHES.keys() == FACTORS.keys()
    made = {(kind, case) for kind, bench in BENCHES.items() for case in CASES if hasattr(bench, case)}
    assert made == {(kind, case) for kind, case, _ in ROWS}


def test_a_factor_that_asks_a_provider_has_the_cases_of_one() -> None:
    for kind in FACTORS:
        missing = [case for case in ("down", "slow", "lying") if not hasattr(BENCHES[kind], case)]
        assert not (load(kind).provider_form and missing), kind


@pytest.mark.parametrize(("kind", "case", "code"), ROWS, ids=[f"{kind}-{case}" for kind, case, _ in ROWS])
def test_what_comes_of_it(
    company: Company, host: object, stack: ExitStack, monkeypatch: pytest.MonkeyPatch, settings: LazySettings,
    fixed_clock: Clock, kind: str, case: str, code: str,
) -> None:  # fmt: skip
    bench: Bench = BENCHES[kind](company, stack, monkeypatch, settings, fixed_clock)
    assert getattr(bench, case)() == code
    assert code in ("allowed", "waiting") or explain(code)
